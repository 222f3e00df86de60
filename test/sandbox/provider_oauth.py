"""A token endpoint, as RFC 6749 has it: refresh_token (rotating), client_credentials, jwt-bearer (RS256).

The client "id" is of the account "", "id.NAME" of NAME.
"""
import base64
import hashlib
import json
import time
import urllib.parse

from provider_store import OWNERS, Refused, account

SECRET = "s/cret"


def unpad(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_jwt(oauth, jwt):
    """RSASSA-PKCS1-v1_5 by hand: the public exponent is 65537."""
    header, claims, signature = jwt.split(".")
    n = int(oauth["modulus"], 16)
    size = (n.bit_length() + 7) // 8
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256((header + "." + claims).encode()).digest()
    expected = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
    good = pow(int.from_bytes(unpad(signature), "big"), 65537, n).to_bytes(size, "big") == expected
    claims = json.loads(unpad(claims))
    if not good or json.loads(unpad(header))["alg"] != "RS256" or not claims["iat"] - 5 <= time.time() <= claims["exp"] <= claims["iat"] + 3600:
        raise Refused(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    oauth["claims"] = claims


def client_of(request, form):
    """Who asks, by the form or by basic authentication, in which both are form-encoded: (id, secret)."""
    header = request.headers.get("Authorization", "")
    if header.startswith("Basic "):
        name, _, secret = base64.b64decode(header[6:]).decode().partition(":")
        return urllib.parse.unquote_plus(name), urllib.parse.unquote_plus(secret)
    return form.get("client_id", ""), form.get("client_secret")


def token(request):
    form = dict(urllib.parse.parse_qsl(request.body.decode()))
    name, secret = client_of(request, form)
    owner = account(name[3:] if name.startswith("id.") else "")
    oauth = owner.oauth
    if oauth["error"]:
        status, code = oauth["error"]
        raise Refused(status, {"error": code, "error_description": "secret words about somebody"})
    answer = {"token_type": "Bearer"}
    grant = form.get("grant_type")
    if grant == "refresh_token":
        if form.get("refresh_token") != oauth["refresh"]:
            raise Refused(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
        if oauth["rotate"]:
            oauth["refresh"] = answer["refresh_token"] = "r%d" % (oauth["count"] + 1)
    elif grant == "client_credentials":
        if not (name == "id" or name.startswith("id.")) or secret != SECRET:
            raise Refused(401, {"error": "invalid_client"})
    elif grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
        check_jwt(oauth, form["assertion"])
    else:
        raise Refused(400, {"error": "unsupported_grant_type"})
    oauth["count"] += 1
    answer["access_token"] = "access%d%s" % (oauth["count"], "." + owner.name if owner.name else "")
    owner.revoke()
    owner.live = {answer["access_token"]}
    OWNERS[answer["access_token"]] = owner
    if oauth["expires_in"]:
        answer["expires_in"] = oauth["expires_in"]
    return answer
