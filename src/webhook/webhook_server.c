/*
 * webhook_server.c
 *		The listener's HTTP server, on libmicrohttpd.
 *
 * libmicrohttpd parses, buffers and times out; what it lets pass and should not,
 * is refused here: a body whose length is told twice, or in two ways, control
 * characters in a header, a client that sends a byte a second for ever (its own
 * timer starts anew with each), and more connections than there is room for (it
 * would leave them waiting).  Each connection serves one request, so that nothing
 * can be smuggled behind it.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/ilist.h"
#include "portability/instr_time.h"

#include "webhook/webhook_server.h"

#define BACKLOG				512
#define SPARE_CONNECTIONS	32	/* of libmicrohttpd beyond ours: to be closed */
#define MEMORY_LIMIT		(32 * 1024) /* of request line and headers */
#define MAX_HEADERS			100
#define RETRY_AFTER			"5"

/* A connection, from its start. */
typedef struct Client
{
	dlist_node	node;
	instr_time	start;
	int			fd;
} Client;

struct WebhookServer
{
	struct MHD_Daemon *daemon;
	ServerLimits limits;
	int			fd;				/* libmicrohttpd's epoll descriptor */
	bool		busy;
	int			nclients;
	dlist_head	clients;		/* the oldest first */
	ServerRequest *first;		/* complete, in order of arrival */
	ServerRequest **last;
};

static void
free_request(ServerRequest *r)
{
	for (int i = 0; i < r->nheaders; i++)
	{
		free(r->headers[i].name);
		free(r->headers[i].value);
	}
	free(r->headers);
	free(r->target);
	free(r->body);
	free(r->answer);
	free(r);
}

/* ---- what libmicrohttpd calls ---- */

static enum MHD_Result
accept_client(void *arg, const struct sockaddr *address, socklen_t len)
{
	WebhookServer *server = arg;

	return server->nclients < server->limits.connections ? MHD_YES : MHD_NO;
}

static void
notify_connection(void *arg, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode code)
{
	WebhookServer *server = arg;
	Client	   *client;

	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

		client = malloc(sizeof(Client));
		*context = client;
		if (client == NULL)
			return;
		client->fd = info->connect_fd;
		INSTR_TIME_SET_CURRENT(client->start);
		dlist_push_tail(&server->clients, &client->node);
		server->nclients++;
		return;
	}
	client = *context;
	if (client == NULL)
		return;
	dlist_delete(&client->node);
	server->nclients--;
	free(client);
	*context = NULL;
}

/* The request line has been read: nothing else keeps the target as it was sent. */
static void *
begin_request(void *arg, const char *target, struct MHD_Connection *connection)
{
	ServerRequest *r = calloc(1, sizeof(ServerRequest));

	if (r != NULL && (r->target = strdup(target)) == NULL)
	{
		free(r);
		r = NULL;
	}
	if (r != NULL)
		r->connection = connection;
	return r;
}

static void
end_request(void *arg, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
	if (*context)
		free_request(*context);
	*context = NULL;
}

typedef struct HeaderScan
{
	ServerRequest *request;
	int			lengths;		/* Content-Length */
	int			encodings;		/* Transfer-Encoding */
	bool		bad;
} HeaderScan;

static enum MHD_Result
scan_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	HeaderScan *scan = arg;
	ServerRequest *r = scan->request;

	if (value == NULL)
		value = "";
	if (pg_strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0)
	{
		scan->lengths++;
		scan->bad |= value[0] == '\0' || value[strspn(value, "0123456789")] != '\0';
	}
	if (pg_strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0)
	{
		scan->encodings++;
		scan->bad |= pg_strcasecmp(value, "chunked") != 0;
	}
	/* the end of a line among them is a folded one */
	for (const char *p = value; *p; p++)
		scan->bad |= ((unsigned char) *p < ' ' && *p != '\t') || *p == 0x7f;
	if (r->nheaders == MAX_HEADERS)
		scan->bad = true;
	if (scan->bad)
		return MHD_NO;
	if (r->headers == NULL && (r->headers = calloc(MAX_HEADERS, sizeof(ServerHeader))) == NULL)
	{
		scan->bad = true;
		return MHD_NO;
	}
	r->headers[r->nheaders].name = strdup(name);
	r->headers[r->nheaders].value = strdup(value);
	scan->bad = r->headers[r->nheaders].name == NULL || r->headers[r->nheaders].value == NULL;
	r->nheaders++;
	return scan->bad ? MHD_NO : MHD_YES;
}

static enum MHD_Result
respond(struct MHD_Connection *connection, int status, const char *answer)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(strlen(answer), unconstify(char *, answer), MHD_RESPMEM_MUST_COPY);
	enum MHD_Result result;

	if (response == NULL)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
							answer[0] == '{' ? "application/json" : "text/plain; charset=utf-8");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
		MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, RETRY_AFTER);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "POST");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static bool
starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* A request whose headers are complete: what is to be answered at once, or 0. */
static int
look_at(WebhookServer *server, ServerRequest *r, const char *method, const char **answer)
{
	HeaderScan	scan = {.request = r};
	const char *length;

	*answer = "{\"error\": \"bad request\"}";
	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, scan_header, &scan);
	if (scan.bad || scan.lengths > 1 || scan.encodings > 1 || (scan.lengths && scan.encodings))
		return MHD_HTTP_BAD_REQUEST;
	if (strcmp(r->target, "/health") == 0 && (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0))
	{
		*answer = server->busy ? "{\"status\": \"busy\"}" : "{\"status\": \"ok\"}";
		return server->busy ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK;
	}
	if (!starts_with(r->target, "/webhooks/"))
	{
		*answer = "{\"error\": \"not found\"}";
		return MHD_HTTP_NOT_FOUND;
	}
	if (strcmp(method, "POST") != 0)
	{
		*answer = "{\"error\": \"method not allowed\"}";
		return MHD_HTTP_METHOD_NOT_ALLOWED;
	}
	length = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
	if (length && strtoull(length, NULL, 10) > server->limits.body)
	{
		*answer = "{\"error\": \"too large\"}";
		return MHD_HTTP_CONTENT_TOO_LARGE;
	}
	if (server->busy)
	{
		*answer = "{\"error\": \"busy, try again\"}";
		return MHD_HTTP_SERVICE_UNAVAILABLE;
	}
	return 0;
}

static enum MHD_Result
handle(void *arg, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
	   const char *data, size_t *size, void **context)
{
	WebhookServer *server = arg;
	ServerRequest *r = *context;

	if (r == NULL)
		return MHD_NO;			/* out of memory */
	if (!r->begun)
	{
		const char *answer;
		int			status = look_at(server, r, method, &answer);

		r->begun = true;
		return status ? respond(connection, status, answer) : MHD_YES;
	}
	if (r->status)
		return respond(connection, r->status, r->answer);
	if (*size > 0)
	{
		char	   *grown;

		/* of a body in chunks nobody knew the length; what is too long already is read to its end */
		if (r->len + *size > server->limits.body)
		{
			free(r->body);
			r->body = NULL;
			r->len = server->limits.body + 1;
			*size = 0;
			return MHD_YES;
		}
		grown = realloc(r->body, r->len + *size);
		if (grown == NULL)
			return MHD_NO;
		memcpy(grown + r->len, data, *size);
		r->body = grown;
		r->len += *size;
		*size = 0;
		return MHD_YES;
	}
	if (r->len > server->limits.body)
		return respond(connection, MHD_HTTP_CONTENT_TOO_LARGE, "{\"error\": \"too large\"}");
	if (!r->queued)
	{
		r->queued = true;
		MHD_suspend_connection(connection);
		*server->last = r;
		server->last = &r->next;
	}
	return MHD_YES;
}

static void
log_nothing(void *arg, const char *format, va_list args)
{
	/* that a client went away is no news, and requests are nobody's to read */
}

static void
panic(void *arg, const char *file, unsigned int line, const char *reason)
{
	/* its state is not to be trusted any more; this does not return, and does not jump */
	ereport(FATAL,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("contactsync listener: the HTTP server has failed"),
			 errdetail("%s", reason ? reason : "no reason given")));
}

/* ---- for the owner ---- */

/* A socket that listens there, or -1 with a reason in error. */
static int
open_socket(const char *address, char *error, size_t error_size)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
	struct addrinfo *found;
	char		host[256];
	const char *colon = strrchr(address, ':');
	size_t		len = colon ? colon - address : 0;
	int			fd;
	int			on = 1;

	if (len >= 2 && address[0] == '[' && address[len - 1] == ']')
	{
		address++;
		len -= 2;
	}
	else if (memchr(address, ':', len) != NULL)
		len = 0;				/* an IPv6 address needs its brackets */
	if (len == 0 || len >= sizeof(host))
	{
		snprintf(error, error_size, "the address must be host:port or [host]:port");
		return -1;
	}
	memcpy(host, address, len);
	host[len] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
	{
		snprintf(error, error_size, "the address must be numeric, host:port or [host]:port");
		return -1;
	}
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
		bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0)
	{
		snprintf(error, error_size, "%s", strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	return fd;
}

WebhookServer *
server_start(const char *address, const ServerLimits *limits, char *error, size_t error_size)
{
	WebhookServer *server;
	const union MHD_DaemonInfo *info;
	int			fd = open_socket(address, error, error_size);

	if (fd < 0)
		return NULL;
	server = calloc(1, sizeof(WebhookServer));
	if (server == NULL)
	{
		snprintf(error, error_size, "out of memory");
		close(fd);
		return NULL;
	}
	server->limits = *limits;
	server->last = &server->first;
	dlist_init(&server->clients);
	MHD_set_panic_func(panic, NULL);
	server->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
									  accept_client, server, handle, server,
									  MHD_OPTION_EXTERNAL_LOGGER, log_nothing, NULL,
									  MHD_OPTION_LISTEN_SOCKET, fd,
									  MHD_OPTION_CONNECTION_LIMIT, (unsigned int) (limits->connections + SPARE_CONNECTIONS),
									  MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int) limits->seconds,
									  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) MEMORY_LIMIT,
									  MHD_OPTION_STRICT_FOR_CLIENT, 1,
									  MHD_OPTION_URI_LOG_CALLBACK, begin_request, server,
									  MHD_OPTION_NOTIFY_COMPLETED, end_request, server,
									  MHD_OPTION_NOTIFY_CONNECTION, notify_connection, server,
									  MHD_OPTION_END);
	info = server->daemon ? MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (info == NULL)
	{
		snprintf(error, error_size, "the HTTP server does not start");
		if (server->daemon)
			MHD_stop_daemon(server->daemon);
		else
			close(fd);
		free(server);
		return NULL;
	}
	server->fd = info->epoll_fd;
	return server;
}

void
server_stop(WebhookServer *server)
{
	ServerRequest *r;

	/* a connection that rests cannot be ended */
	while ((r = server_next(server)) != NULL)
		server_answer(r, MHD_HTTP_SERVICE_UNAVAILABLE, "{\"error\": \"shutting down, try again\"}");
	server_poll(server);
	MHD_stop_daemon(server->daemon);
	free(server);
}

int
server_fd(WebhookServer *server)
{
	return server->fd;
}

/* Milliseconds that a connection has left; not positive if none. */
static long
time_left(WebhookServer *server, Client *client)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, client->start);
	return server->limits.seconds * 1000L - (long) INSTR_TIME_GET_MILLISEC(now);
}

long
server_timeout(WebhookServer *server)
{
	MHD_UNSIGNED_LONG_LONG timeout;
	long		result = MHD_get_timeout(server->daemon, &timeout) == MHD_YES ? (long) Min(timeout, 60000) : -1;

	if (!dlist_is_empty(&server->clients))
	{
		long		left = Max(time_left(server, dlist_head_element(Client, node, &server->clients)), 0) + 1;

		result = result < 0 ? left : Min(result, left);
	}
	return result;
}

void
server_poll(WebhookServer *server)
{
	dlist_mutable_iter iter;

	(void) MHD_run(server->daemon);
	dlist_foreach_modify(iter, &server->clients)
	{
		Client	   *client = dlist_container(Client, node, iter.cur);

		if (time_left(server, client) > 0)
			break;
		/* libmicrohttpd finds it closed, and ends it */
		(void) shutdown(client->fd, SHUT_RDWR);
		INSTR_TIME_SET_CURRENT(client->start);
		dlist_delete(&client->node);
		dlist_push_tail(&server->clients, &client->node);
	}
}

ServerRequest *
server_next(WebhookServer *server)
{
	ServerRequest *r = server->first;

	if (r == NULL)
		return NULL;
	server->first = r->next;
	if (server->first == NULL)
		server->last = &server->first;
	return r;
}

void
server_answer(ServerRequest *request, int status, const char *answer)
{
	request->answer = strdup(answer);
	request->status = request->answer ? status : MHD_HTTP_SERVICE_UNAVAILABLE;
	if (request->answer == NULL)
		request->answer = strdup("");
	MHD_resume_connection(request->connection);
}

void
server_set_busy(WebhookServer *server, bool busy)
{
	server->busy = busy;
}
