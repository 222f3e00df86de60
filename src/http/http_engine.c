/*
 * http_engine.c
 *		Requests from http_submit() to http_next(), and whose turn it is.
 *
 * Requests wait in line here and not in libcurl, for there their time would run
 * while they wait.  Each server has a line, and the lines are served in turn, so
 * that a slow server holds up nobody but who asks it.  How many connections those
 * under way need is known: one each, but for HTTP/2, where many share one.
 *
 * libcurl tells when it wants to be called at the latest (set_timer).  That is an
 * absolute deadline that is cleared only when it fires, just before libcurl is
 * told so: clearing it earlier loses wake-ups.
 *
 * libcurl resolves names in threads of its own.  Those inherit the signal mask,
 * so every call into libcurl that may start one is made with all signals
 * blocked: a signal handler of the server must never run in a foreign thread.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "portability/instr_time.h"
#include "storage/fd.h"

#include "guc.h"
#include "http/http_private.h"

#define MOST_HOSTS		256		/* that are remembered though nobody asks them */
#define MOST_TRANSFERS	2000	/* under way, whatever shares a connection */
#define OTHER_FDS		8		/* of the server's allowance for descriptors that fd.c does not know */

int64
http_now_us(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (int64) INSTR_TIME_GET_MICROSEC(t);
}

static int
set_timer(CURLM *multi, long timeout_ms, void *userp)
{
	HttpEngine *engine = userp;

	engine->deadline = timeout_ms < 0 ? -1 : http_now_us() + timeout_ms * 1000;
	return 0;
}

/* ---- settings ---- */

/* Descriptors are the server's to give. */
static int
connection_limit(void)
{
	return Max(Min(guc_http_connections, max_safe_fds / 3 - OTHER_FDS), 1);
}

static void
set_limits(HttpEngine *engine, int limit, int host_limit)
{
	if (limit < guc_http_connections)
		ereport(LOG,
				(errmsg("contactsync.http_connections is %d, but the server's file descriptors are enough for %d only",
						guc_http_connections, limit),
				 errhint("Raise max_files_per_process, and the limit of open files that the server is started with.")));
	curl_multi_setopt(engine->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) limit);
	curl_multi_setopt(engine->multi, CURLMOPT_MAXCONNECTS, (long) limit);
	curl_multi_setopt(engine->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long) host_limit);
	engine->limit = limit;
	engine->host_limit = host_limit;
}

/* New requests go by what the settings are now. */
static void
follow_settings(HttpEngine *engine)
{
	int			limit = connection_limit();
	int			host_limit = Min(guc_http_host_connections, limit);
	const char *ca_file = guc_http_ca_file ? guc_http_ca_file : "";

	if (limit != engine->limit || host_limit != engine->host_limit)
		set_limits(engine, limit, host_limit);
	if (engine->timeout == guc_http_timeout && engine->stall_timeout == guc_http_stall_timeout &&
		engine->max_body == guc_http_max_body && strcmp(engine->ca_file ? engine->ca_file : "", ca_file) == 0)
		return;
	free(engine->ca_file);
	engine->ca_file = ca_file[0] ? strdup(ca_file) : NULL;
	if (ca_file[0] && engine->ca_file == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	engine->timeout = guc_http_timeout;
	engine->stall_timeout = guc_http_stall_timeout;
	engine->max_body = guc_http_max_body;
	engine->settings++;
}

/* ---- servers ---- */

/* The part of a URL that names its server. */
static size_t
host_part(const char *url)
{
	const char *p = strstr(url, "://");

	return p ? (p + 3 - url) + strcspn(p + 3, "/?#") : strcspn(url, "/?#");
}

/* NULL: no memory. */
static HttpHost *
find_host(HttpEngine *engine, const char *url)
{
	size_t		len = host_part(url);
	uint32		hash = 2166136261u;
	HttpHost  **bucket;
	HttpHost   *h;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (uint8) url[i]) * 16777619u;
	bucket = &engine->hosts[hash % HTTP_BUCKETS];
	for (h = *bucket; h; h = h->next)
		if (h->hash == hash && strncmp(h->name, url, len) == 0 && h->name[len] == '\0')
			return h;
	h = calloc(1, offsetof(HttpHost, name) + len + 1);
	if (h == NULL)
		return NULL;
	memcpy(h->name, url, len);
	h->hash = hash;
	h->streams = 1;
	h->next = *bucket;
	*bucket = h;
	engine->nhosts++;
	return h;
}

static void
forget_host(HttpEngine *engine, HttpHost *host)
{
	HttpHost  **p;

	if (engine->nhosts <= MOST_HOSTS || host->nactive > 0 || host->nwaiting > 0)
		return;
	for (p = &engine->hosts[host->hash % HTTP_BUCKETS]; *p != host; p = &(*p)->next)
		;
	*p = host->next;
	free(host);
	engine->nhosts--;
}

/* How much more room for bodies an answer of this server is likely to take. */
static bool
has_memory(HttpEngine *engine, HttpHost *host)
{
	return engine->held + host->expect <= http_memory() || (engine->held == 0 && engine->nactive == 0);
}

static bool
has_room(HttpEngine *engine, HttpHost *host)
{
	int			now = http_connections_for(host, host->nactive);
	int			then = http_connections_for(host, host->nactive + 1);

	/* libcurl shares a connection when it is there: else each opens its own */
	if (host->streams > 1 && then > host->nconnected && host->opener)
		return false;
	return then <= engine->host_limit && engine->nconnections + then - now <= engine->limit &&
		engine->nactive < MOST_TRANSFERS && has_memory(engine, host);
}

static void
count_active(HttpEngine *engine, HttpHost *host, int change)
{
	engine->nconnections -= http_connections_for(host, host->nactive);
	host->nactive += change;
	engine->nactive += change;
	engine->nconnections += http_connections_for(host, host->nactive);
}

/* ---- lines ---- */

static void
push_waiting(HttpEngine *engine, HttpTransfer *t)
{
	HttpHost   *host = t->host;

	t->next = NULL;
	if (host->last)
		host->last->next = t;
	else
		host->first = t;
	host->last = t;
	host->nwaiting++;
	engine->nwaiting++;
	if (host->ring)
		return;
	/* it is served after all others */
	if (engine->ring)
	{
		host->ring = engine->ring->ring;
		engine->ring->ring = host;
	}
	else
		host->ring = host;
	engine->ring = host;
}

static void
leave_ring(HttpEngine *engine, HttpHost *host)
{
	HttpHost   *before = host;

	while (before->ring != host)
		before = before->ring;
	before->ring = host->ring;
	if (engine->ring == host)
		engine->ring = before == host ? NULL : before;
	host->ring = NULL;
}

/* Take the transfer after prev, NULL = the first, out of its line. */
static HttpTransfer *
take_waiting(HttpEngine *engine, HttpHost *host, HttpTransfer *prev)
{
	HttpTransfer *t = prev ? prev->next : host->first;

	if (prev)
		prev->next = t->next;
	else
		host->first = t->next;
	if (host->last == t)
		host->last = prev;
	host->nwaiting--;
	engine->nwaiting--;
	if (host->first == NULL)
		leave_ring(engine, host);
	return t;
}

void
http_done(HttpTransfer *t, CURLcode code)
{
	t->code = code;
	t->next = t->engine->done;
	t->engine->done = t;
}

static void
start(HttpEngine *engine, HttpTransfer *t)
{
	t->started = http_now_us();
	if (curl_multi_add_handle(engine->multi, t->easy) != CURLM_OK)
	{
		http_done(t, CURLE_OUT_OF_MEMORY);
		return;
	}
	count_active(engine, t->host, 1);
	if (t->host->streams > 1 && http_connections_for(t->host, t->host->nactive) > t->host->nconnected)
		t->host->opener = t;
	t->held = t->host->expect;
	engine->held += t->held;
	t->next = NULL;
	t->prev = engine->newest;
	if (engine->newest)
		engine->newest->next = t;
	else
		engine->active = t;
	engine->newest = t;
}

static void
start_waiting(HttpEngine *engine)
{
	HttpHost   *last = engine->ring;
	HttpHost   *host;

	/* once round without a start */
	while (last && engine->ring)
	{
		host = engine->ring->ring;
		engine->ring = host;
		if (has_room(engine, host))
		{
			start(engine, take_waiting(engine, host, NULL));
			last = engine->ring;
		}
		else if (host == last)
			break;
	}
}

/* Out of libcurl, and off those under way. */
static void
stop(HttpEngine *engine, HttpTransfer *t)
{
	(void) curl_multi_remove_handle(engine->multi, t->easy);
	if (t->prev)
		t->prev->next = t->next;
	else
		engine->active = t->next;
	if (t->next)
		t->next->prev = t->prev;
	else
		engine->newest = t->prev;
	count_active(engine, t->host, -1);
	if (t->host->opener == t)
		t->host->opener = NULL;
	t->host->nconnected = Min(t->host->nconnected, http_connections_for(t->host, t->host->nactive));
	engine->npaused -= t->paused;
	if (engine->favoured == t)
	{
		engine->favoured = NULL;
		engine->resume = true;
	}
}

/* Nothing is to come of a transfer that is in no list. */
static void
drop(HttpEngine *engine, HttpTransfer *t)
{
	HttpHost   *host = t->host;

	engine->held -= t->held;
	engine->resume |= engine->npaused > 0;
	http_transfer_recycle(t);
	forget_host(engine, host);
}

/* ---- the engine ---- */

static void
check_library(void)
{
	curl_version_info_data *version = curl_version_info(CURLVERSION_NOW);

	if (!(version->features & CURL_VERSION_ASYNCHDNS))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl resolves names synchronously, so that a slow name server would stop everything"),
				 errhint("Install a libcurl with a threaded or c-ares resolver.")));
	if (!(version->features & CURL_VERSION_SSL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl has no TLS")));
}

HttpEngine *
http_create(void)
{
	static bool initialized = false;
	HttpEngine *engine;

	if (!initialized && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not initialize libcurl")));
	initialized = true;
	check_library();
	engine = calloc(1, sizeof(HttpEngine));
	if (engine == NULL || !http_sockets_init(engine) || (engine->multi = curl_multi_init()) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	engine->deadline = -1;
	engine->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (engine->epfd < 0 || !AcquireExternalFD())
	{
		if (engine->epfd >= 0)
			close(engine->epfd);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not create an epoll descriptor: %m")));
	}
	curl_multi_setopt(engine->multi, CURLMOPT_SOCKETFUNCTION, http_watch_socket);
	curl_multi_setopt(engine->multi, CURLMOPT_SOCKETDATA, engine);
	curl_multi_setopt(engine->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(engine->multi, CURLMOPT_TIMERDATA, engine);
	curl_multi_setopt(engine->multi, CURLMOPT_PIPELINING, (long) CURLPIPE_MULTIPLEX);
	curl_multi_setopt(engine->multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long) HTTP_STREAMS);
	follow_settings(engine);
	return engine;
}

void
http_destroy(HttpEngine *engine)
{
	HttpTransfer *t;

	for (int i = 0; i < HTTP_BUCKETS; i++)
	{
		for (HttpHost *h = engine->hosts[i]; h; h = h->next)
			while (h->first)
				http_transfer_free(take_waiting(engine, h, NULL));
	}
	while ((t = engine->active) != NULL)
	{
		stop(engine, t);
		http_transfer_free(t);
	}
	while ((t = engine->done) != NULL)
	{
		engine->done = t->next;
		http_transfer_free(t);
	}
	while ((t = engine->idle) != NULL)
	{
		engine->idle = t->next;
		http_transfer_free(t);
	}
	curl_multi_cleanup(engine->multi);
	for (int i = 0; i < HTTP_BUCKETS; i++)
	{
		while (engine->hosts[i])
		{
			HttpHost   *h = engine->hosts[i];

			engine->hosts[i] = h->next;
			free(h);
		}
	}
	close(engine->epfd);
	ReleaseExternalFD();
	free(engine->ca_file);
	free(engine->sockets);
	free(engine);
}

void
http_submit(HttpEngine *engine, const HttpRequest *request)
{
	HttpHost   *host = find_host(engine, request->url);
	bool		sendable;
	HttpTransfer *t;

	follow_settings(engine);
	t = host ? http_transfer_new(engine, request, &sendable) : NULL;
	if (t == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	t->host = host;
	if (!sendable)
		http_done(t, CURLE_URL_MALFORMAT);
	else if (host->first == NULL && has_room(engine, host))
		start(engine, t);
	else
		push_waiting(engine, t);
}

void
http_cancel(HttpEngine *engine, void *owner)
{
	HttpTransfer *next;

	for (int i = 0; i < HTTP_BUCKETS && engine->nwaiting > 0; i++)
	{
		HttpHost   *after;

		for (HttpHost *h = engine->hosts[i]; h; h = after)
		{
			HttpTransfer *prev = NULL;
			HttpTransfer *gone = NULL;

			after = h->next;
			for (HttpTransfer *t = h->first; t; t = next)
			{
				next = t->next;
				if (t->exchange->owner != owner)
				{
					prev = t;
					continue;
				}
				(void) take_waiting(engine, h, prev);
				t->next = gone;
				gone = t;
			}
			for (; gone; gone = next)
			{
				next = gone->next;
				drop(engine, gone);
			}
		}
	}
	for (HttpTransfer *t = engine->active; t; t = next)
	{
		next = t->next;
		if (t->exchange->owner == owner)
		{
			stop(engine, t);
			drop(engine, t);
		}
	}
	for (HttpTransfer **p = &engine->done; *p;)
	{
		HttpTransfer *t = *p;

		if (t->exchange->owner == owner)
		{
			*p = t->next;
			drop(engine, t);
		}
		else
			p = &t->next;
	}
	start_waiting(engine);
}

int
http_room(HttpEngine *engine)
{
	follow_settings(engine);
	return Max(2 * engine->limit - engine->nwaiting - engine->nconnections, 0);
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

	if (engine->done || (engine->resume && engine->npaused > 0))
		return 0;
	if (engine->deadline < 0)
		return -1;
	left = engine->deadline - http_now_us();
	return left <= 0 ? 0 : (long) ((left + 999) / 1000);
}

/* There may be memory for more of their bodies now. */
static void
resume_paused(HttpEngine *engine)
{
	HttpTransfer *next;

	engine->resume = false;
	for (HttpTransfer *t = engine->active; t && engine->npaused > 0; t = next)
	{
		CURLcode	code;

		next = t->next;
		if (!t->paused)
			continue;
		t->paused = false;
		engine->npaused--;
		/* gives what it has kept to http_take_body(), which may want to pause again */
		code = curl_easy_pause(t->easy, CURLPAUSE_CONT);
		if (code != CURLE_OK)
		{
			stop(engine, t);
			http_done(t, code);
		}
	}
}

void
http_poll(HttpEngine *engine)
{
	sigset_t	all;
	sigset_t	saved;
	int			running;

	sigfillset(&all);
	(void) pthread_sigmask(SIG_SETMASK, &all, &saved);
	if (engine->resume)
		resume_paused(engine);
	http_sockets_poll(engine);
	if (engine->deadline >= 0 && engine->deadline <= http_now_us())
	{
		engine->deadline = -1;
		(void) curl_multi_socket_action(engine->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	(void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (engine->nwaiting > 0)
	{
		follow_settings(engine);
		start_waiting(engine);
	}
}

/* What the server has shown of itself. */
static void
learn(HttpEngine *engine, HttpHost *host, HttpExchange *x)
{
	if (x->version > 0 && host->streams != (x->version == 2 ? HTTP_STREAMS : 1))
	{
		engine->nconnections -= http_connections_for(host, host->nactive);
		host->streams = x->version == 2 ? HTTP_STREAMS : 1;
		host->nconnected = http_connections_for(host, host->nactive);
		engine->nconnections += http_connections_for(host, host->nactive);
	}
	host->expect = Max(x->len, host->expect - host->expect / 4);
}

/* The exchange of a transfer that is in no list any more. */
static HttpExchange *
finish(HttpEngine *engine, HttpTransfer *t, CURLcode code)
{
	HttpExchange *x = t->exchange;
	HttpHost   *host = t->host;

	http_settle(t, code);
	if (t->started)
		x->elapsed_us = http_now_us() - t->started;
	/* what a body that stayed small has not needed */
	if (x->body && t->size > 4096 && t->size > 2 * x->len)
	{
		char	   *body = realloc(x->body, x->len + 1);

		if (body)
		{
			x->body = body;
			t->size = x->len + 1;
		}
	}
	if (x->body == NULL)
		x->body = http_nothing;
	x->held = t->size;
	engine->nout += x->held > 0;
	engine->held = engine->held - t->held + x->held;
	t->held = 0;
	t->exchange = NULL;
	learn(engine, host, x);
	http_transfer_recycle(t);
	forget_host(engine, host);
	start_waiting(engine);
	return x;
}

HttpExchange *
http_next(HttpEngine *engine)
{
	CURLMsg    *message;
	int			left;

	if (engine->done)
	{
		HttpTransfer *t = engine->done;

		engine->done = t->next;
		return finish(engine, t, t->code);
	}
	while ((message = curl_multi_info_read(engine->multi, &left)) != NULL)
	{
		CURLcode	code = message->data.result;
		HttpTransfer *t;

		if (message->msg != CURLMSG_DONE ||
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &t) != CURLE_OK)
			continue;
		/* the message goes with the handle */
		stop(engine, t);
		return finish(engine, t, code);
	}
	return NULL;
}

void
http_free(HttpExchange *x)
{
	if (x->held > 0)
	{
		x->engine->held -= x->held;
		x->engine->nout--;
		x->engine->resume |= x->engine->npaused > 0;
		free(x->body);
	}
	if (x->location != http_nothing)
		free(x->location);
	if (x->link != http_nothing)
		free(x->link);
	free(x);
}
