/*
 * webhook.h
 *		Whether a webhook comes from whom it says it does.
 *
 *	webhook_verify.c	the schemes, and the check itself: no fmgr, no catalogs
 *	webhook_receive.c	the check as an SQL function
 *	webhook.sql			receive(): from a request to rows of inbox
 */
#ifndef CONTACTSYNC_WEBHOOK_H
#define CONTACTSYNC_WEBHOOK_H

typedef enum WebhookEncoding
{
	WEBHOOK_HEX,				/* lower case */
	WEBHOOK_BASE64
} WebhookEncoding;

/* How a provider signs. */
typedef struct WebhookScheme
{
	const char *name;
	const char *id_header;
	const char *timestamp_header;	/* NULL: no replay window */
	const char *signature_header;
	const char *signature_prefix;	/* of each signature that counts */
	bool		signature_list; /* several, divided by spaces */
	WebhookEncoding signature_encoding;
	const char *signed_bytes;	/* %i id, %t time stamp, %b body */
	bool		key_base64;		/* else the secret's text is the key */
	const char *key_prefix;		/* may stand before it, and is no part of it */
} WebhookScheme;

typedef struct WebhookRequest
{
	const char *id;				/* headers of the scheme, NULL = absent */
	const char *timestamp;
	const char *signature;
	const uint8 *body;
	size_t		body_len;
} WebhookRequest;

typedef enum WebhookVerdict
{
	WEBHOOK_OK,
	WEBHOOK_NO_SIGNATURE,		/* a header is missing or malformed */
	WEBHOOK_OUTSIDE_WINDOW,
	WEBHOOK_NO_SECRET,			/* none that the scheme could use */
	WEBHOOK_BAD_SIGNATURE
} WebhookVerdict;

extern const WebhookScheme *webhook_scheme(const char *name);

/* Is it signed with any of the secrets?  now in s since 1970, tolerance in s. */
extern WebhookVerdict webhook_verify(const WebhookScheme *scheme, const WebhookRequest *request,
									 char *const *secrets, int nsecrets,
									 int64 now, int tolerance);

#endif							/* CONTACTSYNC_WEBHOOK_H */
