/*
 * http_transfer.c
 *		A request as an easy handle of libcurl.
 *
 * Handles are used again, all options forgotten in between: what one source
 * authenticated with must not reach the server of another.
 */
#include "postgres.h"

#include "guc.h"
#include "http/http_private.h"

#define CONNECT_TIMEOUT_MS	10000L
#define SLOWEST_BYTES		10L	/* a second; less for http_stall_timeout is no answer */
#define CA_CACHE_S			60L	/* after which a file of authorities is read again */

static bool
set_pem(CURL *e, CURLoption option, const char *pem)
{
	struct curl_blob blob = {.data = (void *) pem, .len = strlen(pem), .flags = CURL_BLOB_COPY};

	return curl_easy_setopt(e, option, &blob) == CURLE_OK;
}

static bool
set_options(HttpTransfer *t, const HttpRequest *r)
{
	CURL	   *e = t->easy;
	bool		ok = true;

#define SET(option_, value_) (ok = ok && curl_easy_setopt(e, option_, value_) == CURLE_OK)
	SET(CURLOPT_URL, r->url);
	SET(CURLOPT_PRIVATE, (void *) t);
	SET(CURLOPT_CUSTOMREQUEST, r->method);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_PROTOCOLS_STR, r->allow_http ? "http,https" : "https");
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_PIPEWAIT, 1L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_CA_CACHE_TIMEOUT, CA_CACHE_S);
	/* what is said to be trusted is so in place of the system's authorities */
	if (r->ca)
	{
		ok = ok && set_pem(e, CURLOPT_CAINFO_BLOB, r->ca);
		SET(CURLOPT_CAPATH, NULL);
	}
	else if (guc_http_ca_file && guc_http_ca_file[0])
	{
		SET(CURLOPT_CAINFO, guc_http_ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (r->client_certificate)
		ok = ok && set_pem(e, CURLOPT_SSLCERT_BLOB, r->client_certificate);
	if (r->client_key)
	{
		ok = ok && set_pem(e, CURLOPT_SSLKEY_BLOB, r->client_key);
		/* nobody is here to be asked for a passphrase */
		SET(CURLOPT_KEYPASSWD, "");
	}
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_ACCEPT_ENCODING, "");
	SET(CURLOPT_USERAGENT, "contactsync");
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	SET(CURLOPT_TIMEOUT_MS, guc_http_timeout * 1000L);
	if (guc_http_stall_timeout > 0)
	{
		SET(CURLOPT_LOW_SPEED_LIMIT, SLOWEST_BYTES);
		SET(CURLOPT_LOW_SPEED_TIME, (long) guc_http_stall_timeout);
	}
	SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) t->max_body);
	SET(CURLOPT_ERRORBUFFER, t->curl_error);
	SET(CURLOPT_WRITEFUNCTION, http_take_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, http_take_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_OPENSOCKETFUNCTION, http_open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
	SET(CURLOPT_CLOSESOCKETFUNCTION, http_close_socket);
	SET(CURLOPT_CLOSESOCKETDATA, t->engine);
	SET(CURLOPT_PREREQFUNCTION, http_check_connection);
	SET(CURLOPT_PREREQDATA, t);
	if (strcmp(r->method, "HEAD") == 0)
		SET(CURLOPT_NOBODY, 1L);
	if (t->body)
	{
		SET(CURLOPT_POSTFIELDS, t->body);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) strlen(t->body));
	}
	if (r->token)
	{
		SET(CURLOPT_HTTPAUTH, (long) CURLAUTH_BEARER);
		SET(CURLOPT_XOAUTH2_BEARER, r->token);
	}
	else if (r->username)
	{
		SET(CURLOPT_HTTPAUTH, (long) CURLAUTH_BASIC);
		SET(CURLOPT_USERNAME, r->username);
		SET(CURLOPT_PASSWORD, r->password ? r->password : "");
	}
	if (t->headers)
		SET(CURLOPT_HTTPHEADER, t->headers);
#undef SET
	return ok;
}

static bool
add_header(HttpTransfer *t, const char *line)
{
	struct curl_slist *list = curl_slist_append(t->headers, line);

	if (list)
		t->headers = list;
	return list != NULL;
}

/* False if it cannot be sent so, or there is no memory. */
static bool
add_key_header(HttpTransfer *t, const HttpRequest *r)
{
	size_t		len = strlen(r->key_header) + strlen(r->key) + 3;
	char	   *line = strpbrk(r->key, "\r\n") ? NULL : malloc(len);
	bool		ok;

	if (line == NULL)
		return false;
	snprintf(line, len, "%s: %s", r->key_header, r->key);
	ok = add_header(t, line);
	explicit_bzero(line, len);
	free(line);
	return ok;
}

static HttpExchange *
new_exchange(HttpEngine *engine, const HttpRequest *r)
{
	HttpExchange *x = malloc(sizeof(HttpExchange));

	if (x == NULL)
		return NULL;
	/* the texts are large, and ended by their first byte */
	x->fault = HTTP_FAILED;
	x->status = x->version = 0;
	x->sent = x->link_cut = false;
	x->error[0] = x->content_type[0] = x->location[0] = x->link[0] = '\0';
	x->body = NULL;
	x->len = x->held = 0;
	x->retry_after = -1;
	x->date = x->requests_left = x->limit_reset_ms = -1;
	x->elapsed_us = x->wire_bytes = 0;
	x->owner = r->owner;
	x->engine = engine;
	x->url = strdup(r->url);
	if (x->url == NULL)
	{
		free(x);
		return NULL;
	}
	return x;
}

static HttpTransfer *
take_idle(HttpEngine *engine)
{
	HttpTransfer *t = engine->idle;

	if (t)
	{
		engine->idle = t->next;
		engine->nidle--;
		return t;
	}
	t = malloc(sizeof(HttpTransfer));
	if (t && (t->easy = curl_easy_init()) == NULL)
	{
		free(t);
		t = NULL;
	}
	return t;
}

HttpTransfer *
http_transfer_new(HttpEngine *engine, const HttpRequest *r, bool *sendable)
{
	HttpTransfer *t = take_idle(engine);
	CURL	   *easy;

	if (t == NULL)
		return NULL;
	easy = t->easy;
	memset(t, 0, offsetof(HttpTransfer, curl_error));
	t->curl_error[0] = '\0';
	t->easy = easy;
	t->engine = engine;
	t->allow_private = r->allow_private;
	t->once = strcmp(r->method, "POST") == 0 || strcmp(r->method, "PATCH") == 0;
	t->max_body = (size_t) guc_http_max_body * 1024;
	t->exchange = new_exchange(engine, r);
	if (r->body)
		t->body = strdup(r->body);
	if (t->exchange == NULL || (r->body && t->body == NULL))
	{
		http_transfer_free(t);
		return NULL;
	}
	*sendable = true;
	for (int i = 0; i < r->nheaders; i++)
		*sendable = *sendable && add_header(t, r->headers[i]);
	/* else libcurl holds a larger body back until the server says to go on */
	if (t->body)
		*sendable = *sendable && add_header(t, "Expect:");
	*sendable = *sendable && (r->key_header == NULL || add_key_header(t, r)) && set_options(t, r);
	return t;
}

/* What it was given, and what came: all but its handle. */
static void
clear(HttpTransfer *t)
{
	/* one of them may be a key */
	for (struct curl_slist *h = t->headers; h; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(t->headers);
	t->headers = NULL;
	if (t->exchange)
	{
		free(t->exchange->body);
		free(t->exchange->url);
		free(t->exchange);
	}
	t->exchange = NULL;
	if (t->body)
		explicit_bzero(t->body, strlen(t->body));
	free(t->body);
	t->body = NULL;
}

void
http_transfer_free(HttpTransfer *t)
{
	clear(t);
	curl_easy_cleanup(t->easy);
	free(t);
}

void
http_transfer_recycle(HttpTransfer *t)
{
	HttpEngine *engine = t->engine;

	if (engine->nidle >= engine->limit)
	{
		http_transfer_free(t);
		return;
	}
	clear(t);
	curl_easy_reset(t->easy);
	t->next = engine->idle;
	engine->idle = t;
	engine->nidle++;
}
