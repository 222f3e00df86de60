/*
 * webhook_verify.c
 *		The signature schemes of webhooks, and their check.
 *
 * A scheme is a row of a table.  The expected signature is computed and encoded,
 * and compared with what was sent as it stands: an encoding that is not the
 * canonical one (hex in upper case, base64 without padding) does not match.
 * All secrets and all signatures are gone through, whether one matches or not.
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/hmac.h"
#include "common/sha2.h"

#include "webhook/webhook.h"

static const WebhookScheme schemes[] =
{
	{
		/* Standard Webhooks, version 1 */
		.name = "standard",
		.id_header = "webhook-id",
		.timestamp_header = "webhook-timestamp",
		.signature_header = "webhook-signature",
		.signature_prefix = "v1,",
		.signature_list = true,
		.signature_encoding = WEBHOOK_BASE64,
		.signed_bytes = "%i.%t.%b",
		.key_base64 = true,
		.key_prefix = "whsec_",
	},
	{
		.name = "github",
		.id_header = "x-github-delivery",
		.signature_header = "x-hub-signature-256",
		.signature_prefix = "sha256=",
		.signature_encoding = WEBHOOK_HEX,
		.signed_bytes = "%b",
	},
};

#define SIGNATURE_MAX	(2 * PG_SHA256_DIGEST_LENGTH)

const WebhookScheme *
webhook_scheme(const char *name)
{
	for (int i = 0; i < lengthof(schemes); i++)
		if (strcmp(schemes[i].name, name) == 0)
			return &schemes[i];
	return NULL;
}

/* Compare in a time that depends on the lengths alone. */
static bool
same_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
	volatile unsigned char difference = 0;

	if (a_len != b_len)
		return false;
	for (size_t i = 0; i < a_len; i++)
		difference |= (unsigned char) a[i] ^ (unsigned char) b[i];
	return difference == 0;
}

/* Seconds since 1970 as plain digits. */
static bool
parse_timestamp(const char *s, int64 *value)
{
	size_t		len = strlen(s);

	if (len == 0 || len > 12)
		return false;
	*value = 0;
	for (; *s; s++)
	{
		if (*s < '0' || *s > '9')
			return false;
		*value = *value * 10 + (*s - '0');
	}
	return true;
}

/* The key that a secret stands for, palloc'd; NULL where it is none. */
static uint8 *
make_key(const WebhookScheme *scheme, const char *secret, int *len)
{
	uint8	   *key;
	int			secret_len;

	if (scheme->key_prefix &&
		strncmp(secret, scheme->key_prefix, strlen(scheme->key_prefix)) == 0)
		secret += strlen(scheme->key_prefix);
	secret_len = strlen(secret);
	key = palloc(secret_len + 4);
	if (scheme->key_base64)
		*len = pg_b64_decode(secret, secret_len, (void *) key, secret_len + 4);
	else
	{
		memcpy(key, secret, secret_len);
		*len = secret_len;
	}
	if (*len <= 0)
	{
		pfree(key);
		return NULL;
	}
	return key;
}

/* The signature in the scheme's encoding, without its prefix; its length. */
static int
expected_signature(const WebhookScheme *scheme, const WebhookRequest *request,
				   const uint8 *key, int key_len, char *result)
{
	pg_hmac_ctx *ctx = pg_hmac_create(PG_SHA256);
	uint8		mac[PG_SHA256_DIGEST_LENGTH];
	bool		ok = ctx != NULL && pg_hmac_init(ctx, key, key_len) >= 0;

	for (const char *p = scheme->signed_bytes; ok && *p; p++)
	{
		const uint8 *bytes = (const uint8 *) p;
		size_t		len = 1;

		if (*p == '%')
		{
			p++;
			if (*p == 'b')
			{
				bytes = request->body;
				len = request->body_len;
			}
			else
			{
				const char *header = *p == 'i' ? request->id : request->timestamp;

				bytes = (const uint8 *) header;
				len = strlen(header);
			}
		}
		if (len > 0)
			ok = pg_hmac_update(ctx, bytes, len) >= 0;
	}
	ok = ok && pg_hmac_final(ctx, mac, sizeof(mac)) >= 0;
	pg_hmac_free(ctx);
	if (!ok)
		elog(ERROR, "could not compute a signature");

	if (scheme->signature_encoding == WEBHOOK_BASE64)
		return pg_b64_encode((void *) mac, sizeof(mac), result, SIGNATURE_MAX);
	for (int i = 0; i < sizeof(mac); i++)
	{
		result[2 * i] = "0123456789abcdef"[mac[i] >> 4];
		result[2 * i + 1] = "0123456789abcdef"[mac[i] & 15];
	}
	return 2 * sizeof(mac);
}

/* Is it among the signatures that were sent? */
static bool
signature_matches(const WebhookScheme *scheme, const char *sent, const char *expected, int len)
{
	size_t		prefix_len = strlen(scheme->signature_prefix);
	bool		found = false;

	while (*sent)
	{
		size_t		sent_len = scheme->signature_list ? strcspn(sent, " ") : strlen(sent);

		/* other versions may stand in the list */
		if (sent_len >= prefix_len && strncmp(sent, scheme->signature_prefix, prefix_len) == 0 &&
			same_bytes(sent + prefix_len, sent_len - prefix_len, expected, len))
			found = true;
		sent += sent_len;
		if (*sent)
			sent++;
	}
	return found;
}

WebhookVerdict
webhook_verify(const WebhookScheme *scheme, const WebhookRequest *request,
			   char *const *secrets, int nsecrets, int64 now, int tolerance)
{
	bool		any_key = false;
	bool		found = false;

	if (request->signature == NULL)
		return WEBHOOK_NO_SIGNATURE;
	if (strstr(scheme->signed_bytes, "%i") != NULL &&
		(request->id == NULL || request->id[0] == '\0' ||
	/* a full stop could be moved between the id and what follows it */
		 strchr(request->id, '.') != NULL))
		return WEBHOOK_NO_SIGNATURE;
	if (scheme->timestamp_header)
	{
		int64		timestamp;

		if (request->timestamp == NULL || !parse_timestamp(request->timestamp, &timestamp))
			return WEBHOOK_NO_SIGNATURE;
		if (timestamp < now - tolerance || timestamp > now + tolerance)
			return WEBHOOK_OUTSIDE_WINDOW;
	}

	for (int i = 0; i < nsecrets; i++)
	{
		char		expected[SIGNATURE_MAX];
		int			len;
		int			key_len;
		uint8	   *key = make_key(scheme, secrets[i], &key_len);

		if (key == NULL)
			continue;
		any_key = true;
		len = expected_signature(scheme, request, key, key_len, expected);
		explicit_bzero(key, key_len);
		pfree(key);
		if (signature_matches(scheme, request->signature, expected, len))
			found = true;
	}
	return found ? WEBHOOK_OK : any_key ? WEBHOOK_BAD_SIGNATURE : WEBHOOK_NO_SECRET;
}
