/*
 * http_engine.c
 *		One libcurl multi handle driven by epoll.
 *
 * libcurl tells which sockets it waits for (watch_socket) and when it wants to
 * be called at the latest (set_timer).  The timer is an absolute deadline that
 * is cleared only when it fires, just before libcurl is told so: clearing it
 * earlier loses wake-ups.
 *
 * libcurl resolves names in threads of its own.  Those inherit the signal mask,
 * so every call into libcurl that may start one is made with all signals
 * blocked: a signal handler of the server must never run in a foreign thread.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "guc.h"
#include "http/http.h"

#define CONNECT_TIMEOUT_MS	10000L
#define MAX_REDIRECTS		0L

/* A request on its way; its exchange outlives it. */
typedef struct Transfer
{
	struct Transfer *next;
	CURL	   *easy;
	struct curl_slist *headers;
	char	   *body;
	bool		allow_private;
	bool		address_refused;
	bool		too_large;
	bool		refused;		/* libcurl would not take it */
	size_t		max_body;
	size_t		size;			/* allocated for the response's body */
	char		curl_error[CURL_ERROR_SIZE];
	HttpExchange *exchange;
} Transfer;

struct HttpEngine
{
	CURLM	   *multi;
	int			epfd;
	int64		deadline;		/* microseconds of the monotonic clock; -1 = none */
	Transfer   *transfers;
	int			nrefused;		/* of them, those that libcurl would not take */
};

static int64
now_us(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (int64) INSTR_TIME_GET_MICROSEC(t);
}

/* ---- callbacks: called by libcurl, must not throw ---- */

static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *userp, void *socketp)
{
	HttpEngine *engine = userp;
	struct epoll_event event = {0};

	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(engine->epfd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.data.fd = fd;
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	if (epoll_ctl(engine->epfd, EPOLL_CTL_MOD, fd, &event) != 0)
		(void) epoll_ctl(engine->epfd, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

static int
set_timer(CURLM *multi, long timeout_ms, void *userp)
{
	HttpEngine *engine = userp;

	engine->deadline = timeout_ms < 0 ? -1 : now_us() + timeout_ms * 1000;
	return 0;
}

/* Knows the address that is dialled, whatever the name stood for before. */
static curl_socket_t
open_socket(void *userp, curlsocktype purpose, struct curl_sockaddr *address)
{
	Transfer   *t = userp;

	if (!t->allow_private && !http_address_public(&address->addr))
	{
		t->address_refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/*
 * A connection that another source opened may serve this one too: so the
 * address is looked at once more, before anything is sent.
 */
static int
check_connection(void *userp, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	Transfer   *t = userp;
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	bool		allowed = t->allow_private ||
		(inet_pton(AF_INET, remote_ip, &v4.sin_addr) == 1 && http_address_public((struct sockaddr *) &v4)) ||
		(inet_pton(AF_INET6, remote_ip, &v6.sin6_addr) == 1 && http_address_public((struct sockaddr *) &v6));

	t->address_refused |= !allowed;
	return allowed ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

static size_t
take_body(char *data, size_t size, size_t n, void *userp)
{
	Transfer   *t = userp;
	HttpExchange *x = t->exchange;
	size_t		len = size * n;

	if (len > t->max_body - x->len)
	{
		t->too_large = true;
		return 0;
	}
	if (x->len + len + 1 > t->size)
	{
		size_t		want = Max(t->size * 2, x->len + len + 1);
		char	   *body = realloc(x->body, want);

		if (body == NULL)
			return 0;
		x->body = body;
		t->size = want;
	}
	memcpy(x->body + x->len, data, len);
	x->len += len;
	x->body[x->len] = '\0';
	return len;
}

/* The value of a header line if it is of this name, else NULL. */
static const char *
header_value(const char *line, size_t len, const char *name, size_t *value_len)
{
	size_t		n = strlen(name);

	if (len <= n || line[n] != ':' || pg_strncasecmp(line, name, n) != 0)
		return NULL;
	for (n++; n < len && (line[n] == ' ' || line[n] == '\t'); n++)
		;
	while (len > n && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
		len--;
	*value_len = len - n;
	return line + n;
}

static void
copy_value(char *to, size_t size, const char *from, size_t len)
{
	len = Min(len, size - 1);
	memcpy(to, from, len);
	to[len] = '\0';
}

/*
 * X-RateLimit-Remaining and -Reset, RateLimit-..., X-HubSpot-RateLimit-...: a time
 * is a number of seconds, or one since 1970, in seconds or milliseconds.
 */
static void
take_rate_limit(HttpExchange *x, const char *line, size_t len)
{
	char		name[64];
	const char *colon = memchr(line, ':', Min(len, sizeof(name) - 1));
	int64		value;
	char	   *end;
	char		digits[32];
	size_t		vlen;
	const char *v;

	if (colon == NULL)
		return;
	for (size_t i = 0; i < colon - line; i++)
		name[i] = pg_ascii_tolower((unsigned char) line[i]);
	name[colon - line] = '\0';
	if (strstr(name, "ratelimit-") == NULL && strstr(name, "rate-limit-") == NULL)
		return;
	v = header_value(line, len, name, &vlen);
	copy_value(digits, sizeof(digits), v, vlen);
	value = strtoll(digits, &end, 10);
	if (end == digits || value < 0 || strstr(name, "daily"))
		return;
	if (strstr(name, "limit-remaining"))
		x->requests_left = value;
	else if (strstr(name, "limit-interval-milliseconds"))
		x->limit_reset_ms = value;
	else if (strstr(name, "limit-reset"))
	{
		int64		now_ms = (int64) time(NULL) * 1000;

		if (value < 1000000000)
			x->limit_reset_ms = value * 1000;
		else
			x->limit_reset_ms = Max((value < INT64CONST(100000000000) ? value * 1000 : value) - now_ms, 0);
	}
}

static size_t
take_header(char *line, size_t size, size_t n, void *userp)
{
	HttpExchange *x = ((Transfer *) userp)->exchange;
	size_t		len = size * n;
	size_t		vlen;
	const char *v;

	/* an interim response is not the answer */
	if (len > 5 && memcmp(line, "HTTP/", 5) == 0)
	{
		x->content_type[0] = x->location[0] = x->link[0] = '\0';
		x->link_cut = false;
	}
	take_rate_limit(x, line, len);
	if ((v = header_value(line, len, "content-type", &vlen)) != NULL)
		copy_value(x->content_type, sizeof(x->content_type), v, vlen);
	else if ((v = header_value(line, len, "location", &vlen)) != NULL)
		copy_value(x->location, sizeof(x->location), v, vlen);
	else if ((v = header_value(line, len, "date", &vlen)) != NULL)
	{
		char		date[64];

		copy_value(date, sizeof(date), v, vlen);
		x->date = (int64) curl_getdate(date, NULL);
	}
	else if ((v = header_value(line, len, "link", &vlen)) != NULL)
	{
		size_t		n_so_far = strlen(x->link);

		/* several headers are one, parted by commas */
		if (n_so_far + vlen + 3 >= sizeof(x->link))
			x->link_cut = true;
		else
			snprintf(x->link + n_so_far, sizeof(x->link) - n_so_far, "%s%.*s", n_so_far ? ", " : "", (int) vlen, v);
	}
	return len;
}

/* ---- transfers ---- */

static void
transfer_free(HttpEngine *engine, Transfer *t)
{
	engine->nrefused -= t->refused;
	for (Transfer **p = &engine->transfers; *p; p = &(*p)->next)
	{
		if (*p == t)
		{
			*p = t->next;
			break;
		}
	}
	if (t->easy)
	{
		(void) curl_multi_remove_handle(engine->multi, t->easy);
		curl_easy_cleanup(t->easy);
	}
	/* one of them may be a key */
	for (struct curl_slist *h = t->headers; h; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(t->headers);
	if (t->exchange)
		http_free(t->exchange);
	if (t->body)
		explicit_bzero(t->body, strlen(t->body));
	free(t->body);
	free(t);
}

void
http_free(HttpExchange *x)
{
	free(x->body);
	free(x->url);
	free(x);
}

HttpEngine *
http_create(void)
{
	static bool initialized = false;
	HttpEngine *engine = MemoryContextAllocZero(TopMemoryContext, sizeof(HttpEngine));
	curl_version_info_data *version;

	if (!initialized)
	{
		if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
			ereport(ERROR, (errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
							errmsg("could not initialize libcurl")));
		initialized = true;
	}
	version = curl_version_info(CURLVERSION_NOW);
	if (!(version->features & CURL_VERSION_ASYNCHDNS))
		ereport(WARNING, (errmsg("libcurl resolves names synchronously"),
						  errhint("Slow name servers will hold up every source; use a libcurl with a threaded or c-ares resolver.")));

	engine->deadline = -1;
	engine->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (engine->epfd < 0 || !AcquireExternalFD())
	{
		if (engine->epfd >= 0)
			close(engine->epfd);
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
						errmsg("could not create an epoll descriptor: %m")));
	}
	engine->multi = curl_multi_init();
	if (engine->multi == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	curl_multi_setopt(engine->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(engine->multi, CURLMOPT_SOCKETDATA, engine);
	curl_multi_setopt(engine->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(engine->multi, CURLMOPT_TIMERDATA, engine);
	curl_multi_setopt(engine->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) guc_http_connections);
	curl_multi_setopt(engine->multi, CURLMOPT_MAXCONNECTS, (long) guc_http_connections);
	return engine;
}

void
http_destroy(HttpEngine *engine)
{
	while (engine->transfers)
		transfer_free(engine, engine->transfers);
	curl_multi_cleanup(engine->multi);
	close(engine->epfd);
	ReleaseExternalFD();
	pfree(engine);
}

static bool
set_options(HttpEngine *engine, Transfer *t, const HttpRequest *r)
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
	SET(CURLOPT_FOLLOWLOCATION, MAX_REDIRECTS);
	SET(CURLOPT_PROXY, "");
	if (guc_http_ca_file && guc_http_ca_file[0])
		SET(CURLOPT_CAINFO, guc_http_ca_file);
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_ACCEPT_ENCODING, "");
	SET(CURLOPT_USERAGENT, "contactsync");
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	SET(CURLOPT_TIMEOUT_MS, guc_http_timeout * 1000L);
	SET(CURLOPT_ERRORBUFFER, t->curl_error);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
	SET(CURLOPT_PREREQFUNCTION, check_connection);
	SET(CURLOPT_PREREQDATA, t);
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
add_key_header(Transfer *t, const HttpRequest *r)
{
	size_t		len = strlen(r->key_header) + strlen(r->key) + 3;
	char	   *line = strpbrk(r->key, "\r\n") ? NULL : malloc(len);
	struct curl_slist *list = NULL;

	if (line)
	{
		snprintf(line, len, "%s: %s", r->key_header, r->key);
		list = curl_slist_append(t->headers, line);
		explicit_bzero(line, len);
		free(line);
	}
	if (list)
		t->headers = list;
	return list != NULL;
}

/* Build a transfer; false if it cannot be.  Nothing here throws. */
static bool
transfer_init(HttpEngine *engine, Transfer *t, const HttpRequest *r)
{
	HttpExchange *x = t->exchange = calloc(1, sizeof(HttpExchange));

	if (x == NULL)
		return false;
	x->owner = r->owner;
	x->retry_after = -1;
	x->date = x->requests_left = x->limit_reset_ms = -1;
	x->url = strdup(r->url);
	x->body = calloc(1, 1);
	t->size = 1;
	t->allow_private = r->allow_private;
	t->max_body = (size_t) guc_http_max_body * 1024;
	t->easy = curl_easy_init();
	if (r->body)
		t->body = strdup(r->body);
	if (x->url == NULL || x->body == NULL || t->easy == NULL || (r->body && t->body == NULL))
		return false;
	for (int i = 0; i < r->nheaders; i++)
	{
		struct curl_slist *list = curl_slist_append(t->headers, r->headers[i]);

		if (list == NULL)
			return false;
		t->headers = list;
	}
	if (r->key_header && !add_key_header(t, r))
		return false;
	return set_options(engine, t, r) && curl_multi_add_handle(engine->multi, t->easy) == CURLM_OK;
}

void
http_submit(HttpEngine *engine, const HttpRequest *request)
{
	Transfer   *t = calloc(1, sizeof(Transfer));

	if (t == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	t->next = engine->transfers;
	engine->transfers = t;
	if (transfer_init(engine, t, request))
		return;
	if (t->exchange == NULL || t->exchange->body == NULL || t->exchange->url == NULL)
	{
		transfer_free(engine, t);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	t->refused = true;
	engine->nrefused++;
}

void
http_cancel(HttpEngine *engine, void *owner)
{
	Transfer   *next;

	for (Transfer *t = engine->transfers; t; t = next)
	{
		next = t->next;
		if (t->exchange->owner == owner)
			transfer_free(engine, t);
	}
}

int
http_fd(HttpEngine *engine)
{
	return engine->epfd;
}

long
http_deadline(HttpEngine *engine)
{
	int64		left;

	if (engine->nrefused > 0)
		return 0;
	if (engine->deadline < 0)
		return -1;
	left = engine->deadline - now_us();
	return left <= 0 ? 0 : (long) ((left + 999) / 1000);
}

void
http_poll(HttpEngine *engine)
{
	struct epoll_event events[64];
	sigset_t	all;
	sigset_t	saved;
	int			running;
	int			n;

	sigfillset(&all);
	(void) pthread_sigmask(SIG_SETMASK, &all, &saved);
	n = epoll_wait(engine->epfd, events, lengthof(events), 0);
	for (int i = 0; i < n; i++)
	{
		int			what = 0;

		if (events[i].events & (EPOLLIN | EPOLLHUP))
			what |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			what |= CURL_CSELECT_OUT;
		if (events[i].events & EPOLLERR)
			what |= CURL_CSELECT_ERR;
		(void) curl_multi_socket_action(engine->multi, events[i].data.fd, what, &running);
	}
	if (engine->deadline >= 0 && engine->deadline <= now_us())
	{
		engine->deadline = -1;
		(void) curl_multi_socket_action(engine->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	(void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

/* What became of a finished request, in our terms. */
static void
settle(Transfer *t, CURLcode code)
{
	HttpExchange *x = t->exchange;
	long		status = 0;
	curl_off_t	retry_after = 0;
	curl_off_t	size = 0;
	curl_off_t	elapsed = 0;
	long		header_size = 0;

	(void) curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &elapsed);
	(void) curl_easy_getinfo(t->easy, CURLINFO_SIZE_DOWNLOAD_T, &size);
	(void) curl_easy_getinfo(t->easy, CURLINFO_HEADER_SIZE, &header_size);
	x->elapsed_us = elapsed;
	x->wire_bytes = size + header_size;
	if (code == CURLE_OK)
	{
		(void) curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
		x->status = status;
		/* the header may be a date: libcurl makes seconds of both */
		if (curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &retry_after) == CURLE_OK && retry_after > 0)
			x->retry_after = Min(retry_after, 86400);
		x->fault = HTTP_ANSWERED;
		return;
	}
	if (t->address_refused)
	{
		x->fault = HTTP_REFUSED;
		strlcpy(x->error, "the server's address is private, and the source does not allow that", sizeof(x->error));
	}
	else if (code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT)
	{
		x->fault = HTTP_REFUSED;
		strlcpy(x->error, "the URL is not one that the source may ask", sizeof(x->error));
	}
	else if (t->too_large)
	{
		x->fault = HTTP_TOO_LARGE;
		strlcpy(x->error, "the response is larger than contactsync.http_max_body", sizeof(x->error));
	}
	else
	{
		x->fault = HTTP_FAILED;
		strlcpy(x->error, t->curl_error[0] ? t->curl_error : curl_easy_strerror(code), sizeof(x->error));
	}
}

static HttpExchange *
finish(HttpEngine *engine, Transfer *t, CURLcode code)
{
	HttpExchange *x = t->exchange;

	settle(t, code);
	t->exchange = NULL;
	transfer_free(engine, t);
	return x;
}

HttpExchange *
http_next(HttpEngine *engine)
{
	CURLMsg    *message;
	int			left;

	for (Transfer *t = engine->transfers; t && engine->nrefused > 0; t = t->next)
		if (t->refused)
			return finish(engine, t, CURLE_URL_MALFORMAT);
	while ((message = curl_multi_info_read(engine->multi, &left)) != NULL)
	{
		Transfer   *t;

		if (message->msg != CURLMSG_DONE)
			continue;
		if (curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &t) != CURLE_OK)
			continue;
		return finish(engine, t, message->data.result);
	}
	return NULL;
}
