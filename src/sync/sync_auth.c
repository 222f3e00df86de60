/*
 * sync_auth.c
 *		What a request is authenticated with.
 *
 * The names of a source's secrets say how:
 *
 *	refresh_token [, client_id, client_secret]	OAuth 2.0, refresh token grant
 *	service_account								a Google key file: JWT bearer grant (RFC 7523)
 *	client_id, private_key						the same with a key alone
 *	client_id, client_secret					client credentials grant
 *	token										bearer
 *	api_key										in the header or the parameter that the connector names
 *	username, password							basic
 *
 * and besides, for TLS: ca, and client_certificate with client_key.
 *
 * An access token lives in the worker's memory and nowhere else.  A refresh token
 * that the provider replaces is stored, and that is committed, before the access
 * token that came with it is used: losing it would lock us out.  There is one
 * worker in a database and one run of a source at a time, so that nobody else
 * refreshes the same token: with rotation, two at a time may revoke both.
 *
 * No secret, and nothing that a token endpoint says but its error code, gets into
 * a message.
 */
#include "postgres.h"

#include <time.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "store/secret.h"
#include "sync/sync.h"

#define EXPIRY_MARGIN_S		60
#define JWT_LIFETIME_S		3600
#define JWT_SKEW_S			30		/* that is no reason to refuse an assertion */
#define LONGEST_LIFETIME_S	(86400 * 365)

typedef enum AuthKind
{
	AUTH_NONE, AUTH_BASIC, AUTH_BEARER, AUTH_API_KEY, AUTH_OAUTH
} AuthKind;

typedef enum Grant
{
	GRANT_REFRESH, GRANT_JWT, GRANT_CLIENT
} Grant;

typedef struct SyncAuth
{
	AuthKind	kind;
	Grant		grant;
	char	   *username;
	char	   *password;
	char	   *token;			/* bearer: given, or got */
	char	   *api_key;
	char	   *key_header;
	char	   *key_query;
	/* OAuth */
	char	   *token_url;
	char	   *scope;
	char	   *client_id;
	char	   *client_secret;
	bool		basic_client;	/* the client authenticates by basic, not in the body */
	char	   *refresh_token;
	TimestampTz refresh_changed_at;
	char	   *private_key;
	char	   *key_id;
	char	   *issuer;
	char	   *subject;
	char	   *audience;
	TimestampTz expires;		/* DT_NOEND = not said */
	bool		refused;		/* the last token was, and this is another */
	char	   *body;			/* of the token request that is due; NULL = none is */
	TimestampTz asked_at;
	char	   *url;			/* of the last request, with its key */
	/* TLS, of the source's server and of its token endpoint */
	char	   *ca;
	char	   *client_certificate;
	char	   *client_key;
} SyncAuth;

/* An access token that has not expired, whichever run or session got it. */
typedef struct CachedToken
{
	struct CachedToken *next;
	char	   *tenant;
	char	   *source;
	SyncRun    *asker;			/* who is asking for one now, or NULL */
	uint64		credential;		/* digest of what it was got with */
	char	   *token;
	TimestampTz expires;
	/* an assertion bears a time, and the provider's clock is the one that counts */
	int64		skew;			/* how far it is ahead of ours, in seconds */
	bool		corrected;		/* since the last token */
} CachedToken;

static CachedToken *cached_tokens = NULL;

static void
wipe(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
}

static CachedToken *
cached(SyncRun *run)
{
	for (CachedToken *c = cached_tokens; c; c = c->next)
		if (strcmp(c->source, run->source) == 0 && strcmp(c->tenant, run->tenant) == 0)
			return c;
	return NULL;
}

void
sync_auth_free(SyncRun *run)
{
	SyncAuth   *a = run->auth;
	CachedToken *c = cached(run);

	if (c && c->asker == run)
		c->asker = NULL;
	if (a == NULL)
		return;
	wipe(a->password);
	wipe(a->token);
	wipe(a->api_key);
	wipe(a->client_secret);
	wipe(a->refresh_token);
	wipe(a->private_key);
	wipe(a->body);
	wipe(a->url);
	wipe(a->client_key);
}

/* ---- the cache ---- */

/* What a token depends on: whoever replaces a secret wants it to be used. */
static uint64
credential_digest(const SyncAuth *a)
{
	const char *parts[] = {a->token_url, a->scope, a->client_id, a->client_secret, a->private_key, a->issuer, a->subject};
	uint64		h = a->grant;

	for (int i = 0; i < lengthof(parts); i++)
		h = hash_combine64(h, parts[i] ? hash_bytes_extended((const unsigned char *) parts[i], strlen(parts[i]), 0) : 0);
	return h;
}

static CachedToken *
cache_entry(SyncRun *run)
{
	CachedToken *c = cached(run);
	MemoryContext old;

	if (c)
		return c;
	old = MemoryContextSwitchTo(TopMemoryContext);
	c = palloc0(sizeof(CachedToken));
	c->tenant = pstrdup(run->tenant);
	c->source = pstrdup(run->source);
	c->next = cached_tokens;
	cached_tokens = c;
	MemoryContextSwitchTo(old);
	return c;
}

static void
forget_token(CachedToken *c)
{
	if (c->token)
	{
		wipe(c->token);
		pfree(c->token);
		c->token = NULL;
	}
}

/* The token that we have is of no use any more; another one may be there already. */
static void
forget_own_token(SyncRun *run)
{
	SyncAuth   *a = run->auth;
	CachedToken *c = cached(run);

	if (c && c->token && a->token && strcmp(c->token, a->token) == 0)
		forget_token(c);
}

/* Take the token that is known; false if none is. */
static bool
adopt_token(SyncRun *run)
{
	SyncAuth   *a = run->auth;
	CachedToken *c = cached(run);

	if (c == NULL || c->token == NULL || c->credential != credential_digest(a) || c->expires <= GetCurrentTimestamp())
		return false;
	wipe(a->token);
	sync_keep(run, &a->token, c->token);
	a->expires = c->expires;
	return true;
}

static void
cache_token(SyncRun *run)
{
	SyncAuth   *a = run->auth;
	CachedToken *c = cache_entry(run);
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	forget_token(c);
	c->token = pstrdup(a->token);
	c->expires = a->expires;
	c->credential = credential_digest(a);
	c->corrected = false;
	MemoryContextSwitchTo(old);
}

/* ---- what the source has ---- */

/* A text of the connector's "auth", with its parameters; the source's setting goes before it. */
static char *
auth_text(SyncRun *run, const char *group, const char *name)
{
	JsonbValue *auth = getKeyJsonValueFromContainer(&run->spec->root, "auth", 4, NULL);
	char	   *own = group ? NULL : sync_member(run->settings, name);
	SyncVars	vars = {0};
	Jsonb	   *json;
	char	   *text;

	if (own)
		return own;
	if (auth == NULL || auth->type != jbvBinary)
		return NULL;
	json = JsonbValueToJsonb(auth);
	if (group)
	{
		JsonbValue *v = getKeyJsonValueFromContainer(&json->root, group, strlen(group), NULL);

		if (v == NULL || v->type != jbvBinary)
			return NULL;
		json = JsonbValueToJsonb(v);
	}
	text = sync_member(json, name);
	sync_parameters(run, &vars);
	return text ? sync_expand(text, &vars, false) : NULL;
}

static void
read_service_account(SyncAuth *a, char *text)
{
	Jsonb	   *json = sync_parse_json(text, strlen(text));

	a->issuer = sync_member(json, "client_email");
	a->key_id = sync_member(json, "private_key_id");
	a->private_key = sync_member(json, "private_key");
	wipe(text);
	if (a->issuer == NULL || a->private_key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the secret \"service_account\" is no key file of a service account"),
				 errhint("It is the JSON that the provider lets download, with client_email and private_key.")));
}

static void
set_oauth(SyncRun *run, SyncAuth *a, Grant grant)
{
	char	   *client_auth = auth_text(run, NULL, "client_auth");

	a->kind = AUTH_OAUTH;
	a->grant = grant;
	a->basic_client = client_auth && strcmp(client_auth, "basic") == 0;
	a->token_url = auth_text(run, NULL, "token_url");
	a->scope = auth_text(run, NULL, "scope");
	a->subject = auth_text(run, "jwt", "subject");
	a->audience = auth_text(run, "jwt", "audience");
	if (a->token_url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("it is not known where the source's tokens are to be had"),
				 errhint("Set its setting \"token_url\", or the parameters that the connector's token_url has.")));
	/* one that starts with a slash is on the source's own server */
	if (a->token_url[0] == '/')
		a->token_url = psprintf("%s%s", run->url, a->token_url);
	if (a->audience == NULL)
		a->audience = a->token_url;
}

static TimestampTz
secret_changed_at(const char *source, const char *name)
{
	/* SPI leaves its own context behind, which ends before the run does */
	MemoryContext old = CurrentMemoryContext;
	StoreArray	texts;

	store_array_init(&texts, TEXTOID);
	store_array_add(&texts, CStringGetTextDatum(source), false);
	store_array_add(&texts, CStringGetTextDatum(name), false);
	(void) store_run("SELECT s.changed_at FROM contactsync.source_secrets s "
					 "WHERE s.tenant_id = contactsync.current_tenant() AND s.source = ($1)[1] AND s.name = ($1)[2]",
					 1, (StoreArray *[]) {&texts});
	MemoryContextSwitchTo(old);
	return SPI_processed > 0 ? store_time(0, 1) : DT_NOBEGIN;
}

void
sync_auth_prepare(SyncRun *run)
{
	SyncAuth   *a = palloc0(sizeof(SyncAuth));
	char	   *account;

	run->auth = a;
	a->ca = secret_get(run->source, "ca");
	a->client_certificate = secret_get(run->source, "client_certificate");
	a->client_key = secret_get(run->source, "client_key");
	a->refresh_token = secret_get(run->source, "refresh_token");
	a->client_id = secret_get(run->source, "client_id");
	a->client_secret = secret_get(run->source, "client_secret");
	if (a->refresh_token)
	{
		a->refresh_changed_at = secret_changed_at(run->source, "refresh_token");
		set_oauth(run, a, GRANT_REFRESH);
	}
	else if ((account = secret_get(run->source, "service_account")) != NULL)
	{
		read_service_account(a, account);
		set_oauth(run, a, GRANT_JWT);
	}
	else if (a->client_id && (a->private_key = secret_get(run->source, "private_key")) != NULL)
	{
		a->issuer = a->client_id;
		set_oauth(run, a, GRANT_JWT);
	}
	else if (a->client_id && a->client_secret)
		set_oauth(run, a, GRANT_CLIENT);
	else if ((a->token = secret_get(run->source, "token")) != NULL)
		a->kind = AUTH_BEARER;
	else if ((a->api_key = secret_get(run->source, "api_key")) != NULL)
	{
		a->kind = AUTH_API_KEY;
		a->key_header = auth_text(run, "api_key", "header");
		a->key_query = auth_text(run, "api_key", "query");
		if (a->key_header == NULL && a->key_query == NULL)
			a->key_header = "X-Api-Key";
	}
	else if ((a->username = secret_get(run->source, "username")) != NULL)
	{
		a->kind = AUTH_BASIC;
		a->password = secret_get(run->source, "password");
		/* who reads the header takes the first colon for the end of the name: RFC 7617 */
		if (strchr(a->username, ':'))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
					 errmsg("the source's user name has a colon, which basic authentication cannot tell from its end")));
	}
	if (a->kind == AUTH_OAUTH)
		(void) adopt_token(run);
}

/* ---- asking for a token ---- */

static char *
base64url(const void *data, int len)
{
	int			size = pg_b64_enc_len(len) + 1;
	char	   *result = palloc0(size);
	int			n = pg_b64_encode(data, len, result, size);

	if (n < 0)
		elog(ERROR, "could not encode base64");
	for (int i = 0; i < n; i++)
		result[i] = result[i] == '+' ? '-' : result[i] == '/' ? '_' : result[i];
	while (n > 0 && result[n - 1] == '=')
		n--;
	result[n] = '\0';
	return result;
}

/*
 * Sign by RSASSA-PKCS1-v1_5 with SHA-256; the length, or -1.  Throws nothing: the
 * signature's buffer is the caller's.
 */
static int
sign_rs256(const char *key_text, const char *data, unsigned char *signature, size_t size)
{
	BIO		   *bio = BIO_new_mem_buf(key_text, -1);
	/* no passphrase: nobody is here to be asked for one */
	EVP_PKEY   *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, "") : NULL;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t		len = size;
	bool		ok;

	ok = key && ctx && EVP_PKEY_base_id(key) == EVP_PKEY_RSA && (size_t) EVP_PKEY_size(key) <= size &&
		EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
		EVP_DigestSign(ctx, signature, &len, (const unsigned char *) data, strlen(data)) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	BIO_free(bio);
	ERR_clear_error();
	return ok ? (int) len : -1;
}

static void
append_claim(StringInfo claims, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(claims, "\"%s\":", name);
	escape_json(claims, value);
	appendStringInfoChar(claims, ',');
}

static char *
make_jwt(SyncRun *run)
{
	SyncAuth   *a = run->auth;
	unsigned char signature[1024];
	StringInfoData header;
	StringInfoData claims;
	int64		now = (int64) time(NULL) + cache_entry(run)->skew;
	char	   *signed_part;
	int			len;

	initStringInfo(&header);
	appendStringInfoString(&header, "{\"alg\":\"RS256\",");
	append_claim(&header, "kid", a->key_id);
	appendStringInfoString(&header, "\"typ\":\"JWT\"}");
	initStringInfo(&claims);
	appendStringInfoChar(&claims, '{');
	append_claim(&claims, "iss", a->issuer);
	append_claim(&claims, "sub", a->subject);
	append_claim(&claims, "aud", a->audience);
	append_claim(&claims, "scope", a->scope);
	appendStringInfo(&claims, "\"iat\":" INT64_FORMAT ",\"exp\":" INT64_FORMAT "}", now, now + JWT_LIFETIME_S);
	signed_part = psprintf("%s.%s", base64url(header.data, header.len), base64url(claims.data, claims.len));
	len = sign_rs256(a->private_key, signed_part, signature, sizeof(signature));
	if (len < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the source's private key cannot sign"),
				 errhint("It has to be an RSA key in PEM, without a passphrase.")));
	return psprintf("%s.%s", signed_part, base64url(signature, len));
}

static void
add_field(StringInfo body, const char *name, const char *value)
{
	if (value)
		appendStringInfo(body, "%s%s=%s", body->len ? "&" : "", name, http_url_escape(value));
}

void
sync_auth_renew(SyncRun *run)
{
	SyncAuth   *a = run->auth;
	StringInfoData body;

	if (a->kind != AUTH_OAUTH || (a->token && a->expires > GetCurrentTimestamp()))
		return;
	forget_own_token(run);
	if (adopt_token(run))
		return;
	if (a->grant == GRANT_REFRESH && secret_changed_at(run->source, "refresh_token") != a->refresh_changed_at)
	{
		char	   *now = secret_get(run->source, "refresh_token");

		/* it was replaced meanwhile, by a person or by another one of us */
		wipe(a->refresh_token);
		sync_keep(run, &a->refresh_token, now);
		a->refresh_changed_at = secret_changed_at(run->source, "refresh_token");
		wipe(now);
	}
	initStringInfo(&body);
	switch (a->grant)
	{
		case GRANT_REFRESH:
			add_field(&body, "grant_type", "refresh_token");
			add_field(&body, "refresh_token", a->refresh_token);
			break;
		case GRANT_JWT:
			add_field(&body, "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
			add_field(&body, "assertion", make_jwt(run));
			break;
		case GRANT_CLIENT:
			add_field(&body, "grant_type", "client_credentials");
			add_field(&body, "scope", a->scope);
			break;
	}
	if (a->grant != GRANT_JWT && !a->basic_client)
	{
		add_field(&body, "client_id", a->client_id);
		add_field(&body, "client_secret", a->client_secret);
	}
	sync_keep(run, &a->body, body.data);
	wipe(body.data);
	run->retries = 0;
}

bool
sync_auth_due(SyncRun *run)
{
	return run->auth && run->auth->body != NULL;
}

bool
sync_auth_expired(SyncRun *run)
{
	SyncAuth   *a = run->auth;

	return a->kind == AUTH_OAUTH && a->body == NULL && (a->token == NULL || a->expires <= GetCurrentTimestamp());
}

static void
drop_request(SyncRun *run)
{
	wipe(run->auth->body);
	sync_keep(run, &run->auth->body, NULL);
}

bool
sync_auth_may_ask(SyncRun *run)
{
	CachedToken *c = cached(run);

	if (c == NULL)
		return true;
	if (c->asker && c->asker != run)
		return false;
	if (adopt_token(run))
		drop_request(run);
	return true;
}

void
sync_auth_fill(SyncRun *run, HttpRequest *request)
{
	static const char *const token_headers[] = {"Content-Type: application/x-www-form-urlencoded", "Accept: application/json"};
	SyncAuth   *a = run->auth;

	request->ca = a->ca;
	request->client_certificate = a->client_certificate;
	request->client_key = a->client_key;
	if (a->body)
	{
		request->method = "POST";
		request->url = a->token_url;
		request->body = a->body;
		request->headers = token_headers;
		request->nheaders = lengthof(token_headers);
		if (a->basic_client && a->grant != GRANT_JWT && a->client_id)
		{
			/* as a form would encode them: RFC 6749, 2.3.1 */
			request->username = http_url_escape(a->client_id);
			request->password = a->client_secret ? http_url_escape(a->client_secret) : NULL;
		}
		a->asked_at = GetCurrentTimestamp();
		cache_entry(run)->asker = run;
		return;
	}
	request->method = run->method;
	request->url = run->request;
	request->body = run->body;
	request->nheaders = run->nheaders;
	request->headers = run->headers;
	request->username = a->username;
	request->password = a->password;
	request->token = a->token;
	if (a->kind == AUTH_API_KEY && a->key_query)
	{
		MemoryContext old = MemoryContextSwitchTo(run->context);

		wipe(a->url);
		if (a->url)
			pfree(a->url);
		a->url = http_url_add(run->request, a->key_query, a->api_key);
		MemoryContextSwitchTo(old);
		request->url = a->url;
	}
	else if (a->kind == AUTH_API_KEY)
	{
		request->key_header = a->key_header;
		request->key = a->api_key;
	}
}

/* ---- the answer ---- */

SyncClass
sync_auth_classify(SyncRun *run, HttpExchange *x)
{
	SyncClass	class = sync_classify(x);

	if (class == SYNC_PERMANENT && x->fault == HTTP_ANSWERED && strstr(x->body, "\"temporarily_unavailable\""))
		return SYNC_TRANSIENT;
	return class;
}

/*
 * The code of an OAuth error, {"error": "some_words"}, and nothing else of what the
 * endpoint says.  Its answer need not be JSON at all: it is searched, not parsed.
 */
static char *
error_code(HttpExchange *x)
{
	const char *p = x->body;
	size_t		n;

	while ((p = strstr(p, "\"error\"")) != NULL)
	{
		p += strlen("\"error\"");
		p += strspn(p, " \t\r\n");
		if (*p != ':')
			continue;
		p++;
		p += strspn(p, " \t\r\n");
		n = *p == '"' ? strspn(p + 1, "abcdefghijklmnopqrstuvwxyz_") : 0;
		return n > 0 && n <= 64 && p[n + 1] == '"' ? pnstrdup(p + 1, n) : NULL;
	}
	return NULL;
}

/*
 * Was an assertion refused because our clock is wrong?  Then the next one bears the
 * time of the provider's, once.
 */
static bool
correct_clock(SyncRun *run, HttpExchange *x, const char *code)
{
	CachedToken *c = cache_entry(run);
	int64		off = x->date - ((int64) time(NULL) + c->skew);

	if (run->auth->grant != GRANT_JWT || code == NULL || strcmp(code, "invalid_grant") != 0)
		return false;
	if (c->corrected || x->date <= 0 || (off >= -JWT_SKEW_S && off <= JWT_SKEW_S))
	{
		c->corrected = false;
		c->skew = 0;
		return false;
	}
	c->corrected = true;
	c->skew += off;
	ereport(LOG,
			(errmsg("the clock of this machine differs by " INT64_FORMAT " s from that of the provider of source \"%s\"",
					c->skew, run->source)));
	return true;
}

/* How long a token lives, in seconds; 0 = not said. */
static int64
token_lifetime(Jsonb *json)
{
	JsonbValue *v = getKeyJsonValueFromContainer(&json->root, "expires_in", 10, NULL);
	char	   *text = v ? sync_scalar_text(v) : NULL;
	double		seconds = text ? strtod(text, NULL) : 0;

	return seconds >= 1 ? (int64) Min(seconds, LONGEST_LIFETIME_S) : 0;
}

/* The provider has replaced the refresh token: the old one may be dead already. */
static void
keep_refresh_token(SyncRun *run, char *token)
{
	SyncAuth   *a = run->auth;
	StoreArray	texts;
	StoreArray	times;

	if (guc_secret_key_file == NULL || guc_secret_key_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the provider has replaced the refresh token, and there is no key to seal the new one with"),
				 errhint("Set contactsync.secret_key_file, then authorize the source anew.")));
	store_array_init(&texts, TEXTOID);
	store_array_add(&texts, CStringGetTextDatum(run->source), false);
	store_array_add(&texts, CStringGetTextDatum(token), false);
	store_array_init(&times, TIMESTAMPTZOID);
	store_array_add(&times, TimestampTzGetDatum(a->refresh_changed_at), false);
	(void) store_run("SELECT contactsync._rotate_secret(($1)[1], 'refresh_token', ($1)[2], ($2)[1])", 2,
					 (StoreArray *[]) {&texts, &times});
	a->refresh_changed_at = secret_changed_at(run->source, "refresh_token");
	/* a commit that a crash could undo is none */
	ForceSyncCommit();
	wipe(a->refresh_token);
	sync_keep(run, &a->refresh_token, token);
}

void
sync_auth_answer(SyncRun *run, HttpExchange *x)
{
	SyncAuth   *a = run->auth;
	Jsonb	   *json = NULL;
	char	   *token;
	char	   *type;
	char	   *rotated;
	int64		seconds;

	cache_entry(run)->asker = NULL;
	sync_check_answered(x);
	if (x->status >= 400)
	{
		char	   *code = error_code(x);

		if (correct_clock(run, x, code))
		{
			drop_request(run);
			return;
		}
		if (x->status >= 500 || x->status == 429 || sync_auth_classify(run, x) == SYNC_TRANSIENT)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("the token endpoint cannot answer now: status %d", x->status)));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 code ? errmsg("the token endpoint refused the source's credentials with \"%s\"", code) :
				 errmsg("the token endpoint refused the source's credentials with status %d", x->status),
				 errhint("Authorize the source anew: add_source() with the new secret, then resume_source().")));
	}
	if (x->status == 200 && strstr(x->content_type, "json"))
		json = sync_parse_json(x->body, x->len);
	token = sync_member(json, "access_token");
	if (token == NULL || token[0] == '\0' || strpbrk(token, "\r\n"))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the token endpoint's answer has no token: status %d", x->status)));
	type = sync_member(json, "token_type");
	if (type && pg_strcasecmp(type, "bearer") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the token endpoint gives a token that is no bearer token")));
	seconds = token_lifetime(json);
	/* counted from before it was asked for; without a word of it, until it is refused */
	a->expires = seconds <= 0 ? DT_NOEND :
		a->asked_at + (seconds - Min(EXPIRY_MARGIN_S, seconds / 2)) * USECS_PER_SEC;
	wipe(a->token);
	sync_keep(run, &a->token, token);
	rotated = a->grant == GRANT_REFRESH ? sync_member(json, "refresh_token") : NULL;
	if (rotated && rotated[0] && strcmp(rotated, a->refresh_token) != 0)
		keep_refresh_token(run, rotated);
	cache_token(run);
	drop_request(run);
	run->retries = 0;
}

bool
sync_auth_refused(SyncRun *run)
{
	SyncAuth   *a = run->auth;

	if (a->kind != AUTH_OAUTH || a->refused)
		return false;
	a->refused = true;
	forget_own_token(run);
	wipe(a->token);
	sync_keep(run, &a->token, NULL);
	return true;
}

void
sync_auth_accepted(SyncRun *run)
{
	run->auth->refused = false;
}
