/*
 * http_private.h
 *		What the files of the HTTP engine share.
 */
#ifndef CONTACTSYNC_HTTP_PRIVATE_H
#define CONTACTSYNC_HTTP_PRIVATE_H

#include <curl/curl.h>

#include "http/http.h"

#define HTTP_MAX_HEADER_BYTES	(128 * 1024)
#define HTTP_MAX_WAIT_S			86400	/* that a server may ask for */
#define HTTP_STREAMS			100 /* requests that share a connection of HTTP/2 */

/* A server: scheme, name and port, as URLs spell them. */
typedef struct HttpHost
{
	struct HttpHost *next;		/* in its bucket */
	struct HttpHost *ring;		/* of those with a line, a circle; NULL = none waits */
	struct HttpTransfer *first; /* of the line */
	struct HttpTransfer *last;
	int			nactive;		/* under way */
	int			nwaiting;
	int			streams;		/* requests that share a connection, as far as is known */
	int			nconnected;		/* connections to share that are there */
	struct HttpTransfer *opener;	/* that makes a further one, or finds it */
	size_t		expect;			/* how large an answer of it may well be */
	uint32		hash;
	char		name[FLEXIBLE_ARRAY_MEMBER];
} HttpHost;

/* A request on its way; its exchange outlives it. */
typedef struct HttpTransfer
{
	struct HttpTransfer *next;	/* in the list where it is */
	struct HttpTransfer *prev;	/* only among those under way */
	HttpEngine *engine;
	HttpHost   *host;
	CURL	   *easy;
	struct curl_slist encoding; /* header Accept-Encoding, and after it: */
	struct curl_slist agent;	/* User-Agent, and after it: */
	struct curl_slist *headers;
	char	   *body;
	HttpExchange *exchange;
	int			settings;		/* of the engine, that the handle has */
	bool		http_set;		/* the handle takes http, too */
	bool		tls_set;		/* the handle has certificates of its own */
	bool		allow_private;
	bool		once;			/* it changes something: not to be sent again unasked */
	size_t		max_body;
	/* what happens to one request: zero before it */
	CURLcode	code;			/* of one that libcurl does not report */
	bool		address_refused;
	bool		repeated;		/* libcurl would have sent it again */
	bool		headers_too_large;
	bool		too_large;
	bool		crowded;		/* no memory is left for its answer */
	bool		in_body;
	bool		paused;
	size_t		header_bytes;
	size_t		length;			/* header Content-Length, 0 = not said */
	size_t		size;			/* allocated for the response's body */
	size_t		held;			/* of the engine's memory */
	int64		retry_at;		/* header Retry-After as a date; 0 = none */
	int64		started;
	/* until here */
	char		curl_error[CURL_ERROR_SIZE];
} HttpTransfer;

/* A descriptor that libcurl waits for. */
typedef struct HttpSocket
{
	bool		ours;			/* opened and closed by http_socket.c */
	uint32		wanted;			/* events; 0 = libcurl does not wait for it */
	uint32		registered;		/* events; 0 = it is not in the epoll descriptor */
} HttpSocket;

#define HTTP_BUCKETS	64

struct HttpEngine
{
	CURLM	   *multi;
	int			epfd;
	HttpSocket *sockets;		/* by descriptor */
	int			nsockets;
	int64		deadline;		/* microseconds of the monotonic clock; -1 = none */
	HttpTransfer *active;		/* the oldest first */
	HttpTransfer *newest;
	HttpTransfer *done;			/* that libcurl does not report */
	HttpTransfer *idle;			/* to be used again */
	int			nidle;
	HttpHost   *hosts[HTTP_BUCKETS];
	int			nhosts;
	HttpHost   *ring;			/* the one served last, of those with a line */
	int			nwaiting;
	int			nactive;
	int			nconnections;	/* that those under way need */
	/* settings, as libcurl knows them */
	int			settings;		/* how often those of handles have changed */
	int			limit;			/* of connections */
	int			host_limit;
	int			timeout;
	int			stall_timeout;
	int			max_body;
	char	   *ca_file;		/* NULL = the system's */
	/* memory for bodies */
	size_t		held;
	int			nout;			/* answers that hold some and were not given back */
	HttpTransfer *favoured;		/* may have more than there is, so that something ends */
	int			npaused;
	bool		resume;			/* those paused may try again */
};

static inline int
http_connections_for(const HttpHost *host, int n)
{
	return (n + host->streams - 1) / host->streams;
}

/* http_engine.c */
extern int64 http_now_us(void);
extern void http_done(HttpTransfer *t, CURLcode code);

/* http_transfer.c */
extern HttpTransfer *http_transfer_new(HttpEngine *engine, const HttpRequest *r, bool *sendable);	/* NULL: no memory */
extern void http_transfer_recycle(HttpTransfer *t); /* it is in no list any more */
extern void http_transfer_free(HttpTransfer *t);

/* http_socket.c */
extern bool http_sockets_init(HttpEngine *engine);
extern void http_sockets_poll(HttpEngine *engine);
extern int	http_watch_socket(CURL *easy, curl_socket_t fd, int what, void *userp, void *socketp);
extern curl_socket_t http_open_socket(void *userp, curlsocktype purpose, struct curl_sockaddr *address);
extern int	http_close_socket(void *userp, curl_socket_t fd);
extern int	http_check_connection(void *userp, char *remote_ip, char *local_ip, int remote_port, int local_port);

/* http_answer.c */
extern size_t http_take_header(char *line, size_t size, size_t n, void *userp);
extern size_t http_take_body(char *data, size_t size, size_t n, void *userp);
extern void http_settle(HttpTransfer *t, CURLcode code);
extern size_t http_memory(void);	/* for bodies */
extern char http_nothing[];

#endif							/* CONTACTSYNC_HTTP_PRIVATE_H */
