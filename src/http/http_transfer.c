/*
 * http_transfer.c
 *		A request as an easy handle of libcurl.
 *
 * Handles are used again.  What follows from settings is set once in a handle;
 * what a request brings is set, to nothing where it has none, with every request
 * (set_request), and what is secret is forgotten when it ends (forget): what one
 * source authenticated with must not reach the server of another.
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

/*
 * Certificate and key together, for both.  libcurl lets requests with the same
 * certificate share a connection, whatever their keys are; but a certificate is no
 * secret, and must not be enough to use what somebody else has been let in by.
 */
static bool
set_client_certificate(CURL *e, const HttpRequest *r)
{
	size_t		len = strlen(r->client_certificate) + strlen(r->client_key) + 2;
	char	   *pem = malloc(len);
	bool		ok;

	if (pem == NULL)
		return false;
	snprintf(pem, len, "%s\n%s", r->client_certificate, r->client_key);
	ok = set_pem(e, CURLOPT_SSLCERT_BLOB, pem) && set_pem(e, CURLOPT_SSLKEY_BLOB, pem);
	explicit_bzero(pem, len);
	free(pem);
	return ok;
}

/* What does not depend on the request. */
static bool
set_handle(HttpTransfer *t)
{
	HttpEngine *engine = t->engine;
	CURL	   *e = t->easy;
	bool		ok = true;

#define SET(option_, value_) (ok = ok && curl_easy_setopt(e, option_, value_) == CURLE_OK)
	SET(CURLOPT_PRIVATE, (void *) t);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "https");
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_CA_CACHE_TIMEOUT, CA_CACHE_S);
	/* what is said to be trusted is so in place of the system's authorities */
	if (engine->ca_file)
	{
		SET(CURLOPT_CAINFO, engine->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	/* one is enough, and each is one more that could inflate without bounds; the header is ours, too: libcurl writes its own twice */
	SET(CURLOPT_ACCEPT_ENCODING, "gzip");
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	SET(CURLOPT_TIMEOUT_MS, engine->timeout * 1000L);
	if (engine->stall_timeout > 0)
	{
		SET(CURLOPT_LOW_SPEED_LIMIT, SLOWEST_BYTES);
		SET(CURLOPT_LOW_SPEED_TIME, (long) engine->stall_timeout);
	}
	SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) engine->max_body * 1024);
	SET(CURLOPT_ERRORBUFFER, t->curl_error);
	SET(CURLOPT_WRITEFUNCTION, http_take_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, http_take_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_OPENSOCKETFUNCTION, http_open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
	SET(CURLOPT_CLOSESOCKETFUNCTION, http_close_socket);
	SET(CURLOPT_CLOSESOCKETDATA, engine);
	SET(CURLOPT_PREREQFUNCTION, http_check_connection);
	SET(CURLOPT_PREREQDATA, t);
	t->settings = ok ? engine->settings : -1;
	t->http_set = t->tls_set = false;
	return ok;
}

/* What the request is: everything that one may have is set here. */
static bool
set_request(HttpTransfer *t, const HttpRequest *r)
{
	CURL	   *e = t->easy;
	bool		ok = true;

	SET(CURLOPT_URL, r->url);
	/*
	 * Whether a connection can be shared is known once TLS is set up, and worth
	 * waiting for; without TLS it is not before an answer, which may take its time.
	 */
	SET(CURLOPT_PIPEWAIT, pg_strncasecmp(r->url, "https:", 6) == 0 ? 1L : 0L);
	if (t->http_set != r->allow_http)
		SET(CURLOPT_PROTOCOLS_STR, r->allow_http ? "http,https" : "https");
	t->http_set = r->allow_http;
	if (t->body)
	{
		SET(CURLOPT_POSTFIELDS, t->body);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) strlen(t->body));
	}
	else if (strcmp(r->method, "HEAD") == 0)
		SET(CURLOPT_NOBODY, 1L);
	else
		SET(CURLOPT_HTTPGET, 1L);
	SET(CURLOPT_CUSTOMREQUEST, strcmp(r->method, t->body ? "POST" : "GET") == 0 ? NULL : r->method);
	SET(CURLOPT_HTTPHEADER, &t->encoding);
	SET(CURLOPT_HTTPAUTH, r->token ? (long) CURLAUTH_BEARER : (long) CURLAUTH_BASIC);
	SET(CURLOPT_XOAUTH2_BEARER, r->token);
	SET(CURLOPT_USERNAME, r->token ? NULL : r->username);
	SET(CURLOPT_PASSWORD, r->token || r->username == NULL ? NULL : r->password ? r->password : "");
	/* the defaults cannot be set again: forget() resets such a handle */
	t->tls_set = r->ca || r->client_certificate;
	if (r->ca)
	{
		ok = ok && set_pem(e, CURLOPT_CAINFO_BLOB, r->ca);
		SET(CURLOPT_CAINFO, NULL);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (r->client_certificate)
	{
		ok = ok && set_client_certificate(e, r);
		/* nobody is here to be asked for a passphrase */
		SET(CURLOPT_KEYPASSWD, "");
	}
#undef SET
	if (!ok)
		t->settings = -1;
	return ok;
}

/* A handle that is not in use keeps nothing secret. */
static void
forget(HttpTransfer *t)
{
	CURL	   *e = t->easy;

	if (t->tls_set)
	{
		curl_easy_reset(e);
		t->settings = -1;
		return;
	}
	(void) curl_easy_setopt(e, CURLOPT_URL, NULL);
	(void) curl_easy_setopt(e, CURLOPT_HTTPHEADER, NULL);
	(void) curl_easy_setopt(e, CURLOPT_POSTFIELDS, NULL);
	(void) curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
	(void) curl_easy_setopt(e, CURLOPT_XOAUTH2_BEARER, NULL);
	(void) curl_easy_setopt(e, CURLOPT_USERNAME, NULL);
	(void) curl_easy_setopt(e, CURLOPT_PASSWORD, NULL);
}

static bool
add_header(HttpTransfer *t, const char *line)
{
	struct curl_slist *list = curl_slist_append(t->headers, line);

	if (list == NULL)
		return false;
	t->headers = list;
	/* libcurl leaves out one that has no value, if another says more */
	if (pg_strncasecmp(line, "User-Agent:", 11) == 0)
		t->agent.data = "User-Agent:";
	return true;
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
	x->fault = HTTP_FAILED;
	x->status = x->version = 0;
	x->sent = x->link_cut = false;
	x->error[0] = x->content_type[0] = '\0';
	x->body = NULL;
	x->location = x->link = http_nothing;
	x->len = x->held = 0;
	x->retry_after = -1;
	x->date = x->requests_left = x->limit_reset_ms = -1;
	x->elapsed_us = x->wire_bytes = 0;
	x->owner = r->owner;
	x->tag = r->tag;
	x->engine = engine;
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
	t = calloc(1, sizeof(HttpTransfer));
	if (t && (t->easy = curl_easy_init()) == NULL)
	{
		free(t);
		t = NULL;
	}
	if (t)
	{
		t->engine = engine;
		t->settings = -1;
	}
	return t;
}

HttpTransfer *
http_transfer_new(HttpEngine *engine, const HttpRequest *r, bool *sendable)
{
	HttpTransfer *t = take_idle(engine);

	if (t == NULL)
		return NULL;
	t->allow_private = r->allow_private;
	t->once = strcmp(r->method, "POST") == 0 || strcmp(r->method, "PATCH") == 0;
	t->max_body = (size_t) engine->max_body * 1024;
	t->encoding.data = "Accept-Encoding: gzip";
	t->encoding.next = &t->agent;
	t->agent.data = "User-Agent: contactsync";
	t->exchange = new_exchange(engine, r);
	if (r->body)
		t->body = strdup(r->body);
	if (t->exchange == NULL || (r->body && t->body == NULL))
	{
		http_transfer_free(t);
		return NULL;
	}
	if (t->settings != engine->settings)
	{
		curl_easy_reset(t->easy);
		*sendable = set_handle(t);
	}
	else
		*sendable = true;
	for (int i = 0; i < r->nheaders; i++)
		*sendable = *sendable && add_header(t, r->headers[i]);
	/* else libcurl holds a larger body back until the server says to go on */
	if (t->body)
		*sendable = *sendable && add_header(t, "Expect:");
	*sendable = *sendable && (r->key_header == NULL || add_key_header(t, r));
	t->agent.next = t->headers;
	*sendable = *sendable && set_request(t, r);
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
		t->exchange->held = 0;
		free(t->exchange->body);
		http_free(t->exchange);
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
	forget(t);
	memset((char *) t + offsetof(HttpTransfer, code), 0, offsetof(HttpTransfer, curl_error) - offsetof(HttpTransfer, code));
	t->curl_error[0] = '\0';
	t->host = NULL;
	t->prev = NULL;
	t->next = engine->idle;
	engine->idle = t;
	engine->nidle++;
}
