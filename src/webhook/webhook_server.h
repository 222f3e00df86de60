/*
 * webhook_server.h
 *		An HTTP server for small requests, in one thread and without a thread of
 *		its own: its sockets sit in one epoll descriptor, for which the owner waits
 *		together with its latch.
 *
 * Requests that are complete come from server_next(), and each must be answered;
 * meanwhile its connection rests.  What is wrong with a request as such (method,
 * path, length, framing) is answered here, and never gets to the owner.
 *
 * Callbacks of libmicrohttpd never throw and never palloc: a request lives in
 * malloc'd memory until its connection is done with it.
 */
#ifndef CONTACTSYNC_WEBHOOK_SERVER_H
#define CONTACTSYNC_WEBHOOK_SERVER_H

typedef struct WebhookServer WebhookServer;

typedef struct ServerHeader
{
	char	   *name;
	char	   *value;
} ServerHeader;

typedef struct ServerRequest
{
	struct ServerRequest *next;
	char	   *target;			/* as it was sent: path and query */
	int			nheaders;
	ServerHeader *headers;
	char	   *body;			/* NULL if there is none */
	size_t		len;
	struct MHD_Connection *connection;
	bool		begun;			/* it has been looked at */
	bool		queued;			/* the owner has it, or is to get it */
	int			status;			/* the answer; 0 = there is none yet */
	char	   *answer;
} ServerRequest;

typedef struct ServerLimits
{
	int			connections;	/* those beyond are closed at once */
	int			seconds;		/* that a connection may last, from its start to its answer */
	size_t		body;			/* bytes */
} ServerLimits;

/* Listen at host:port or [host]:port, a numeric address; NULL with a reason in error. */
extern WebhookServer *server_start(const char *address, const ServerLimits *limits, char *error, size_t error_size);
extern void server_stop(WebhookServer *server);
extern int	server_fd(WebhookServer *server);
/* Milliseconds until server_poll() must be called, even if nothing is readable; -1 = no need. */
extern long server_timeout(WebhookServer *server);
extern void server_poll(WebhookServer *server);
extern ServerRequest *server_next(WebhookServer *server);
extern void server_answer(ServerRequest *request, int status, const char *answer);
/* Refuse what comes, until it is said that there is room again. */
extern void server_set_busy(WebhookServer *server, bool busy);

#endif							/* CONTACTSYNC_WEBHOOK_SERVER_H */
