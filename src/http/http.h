/*
 * http.h
 *		The HTTP engine: many requests at a time, in one thread, without ever
 *		blocking the process.
 *
 * One libcurl multi handle whose sockets sit in one epoll descriptor: the owner
 * waits for that descriptor together with its latch, calls http_poll() when it
 * is readable or when http_deadline() has come, and takes finished requests from
 * http_next().  No transaction may be open while anybody waits.
 *
 * Callbacks that libcurl calls never throw and never palloc.  A request and its
 * response live in malloc'd memory that belongs to one HttpExchange; who took it
 * from http_next() gives it back with http_free().
 *
 * A request leaves this machine only as its source allows: https unless
 * allow_http, public addresses unless allow_private (checked on the address
 * that is dialled), no redirects, TLS verified, no proxy from the environment.
 */
#ifndef CONTACTSYNC_HTTP_H
#define CONTACTSYNC_HTTP_H

#include "datatype/timestamp.h"

typedef struct HttpEngine HttpEngine;

typedef struct HttpRequest
{
	const char *method;
	const char *url;
	const char *body;			/* NULL = none; a string */
	int			nheaders;
	const char *const *headers; /* "Name: value" */
	const char *username;		/* basic, if not NULL */
	const char *password;
	const char *token;			/* bearer, if not NULL */
	const char *key_header;		/* name of a header that holds key, if not NULL */
	const char *key;
	bool		allow_http;
	bool		allow_private;
	void	   *owner;			/* comes back with the exchange */
} HttpRequest;

/* Why there is no answer to read. */
typedef enum HttpFault
{
	HTTP_ANSWERED,				/* there is one: see status */
	HTTP_REFUSED,				/* not sent: the URL or its address is not allowed */
	HTTP_TOO_LARGE,				/* the body exceeds contactsync.http_max_body */
	HTTP_FAILED					/* no connection, cut off, timed out, TLS */
} HttpFault;

typedef struct HttpExchange
{
	HttpFault	fault;
	int			status;			/* of HTTP; 0 without an answer */
	char		error[256];		/* for a person; no secrets */
	char	   *url;			/* that was asked */
	char	   *body;			/* NUL-terminated; never NULL */
	size_t		len;
	char		content_type[128];
	char		location[1024];
	char		link[4096];		/* header Link */
	bool		link_cut;		/* it is longer than that */
	int64		date;			/* header Date, in seconds since 1970; -1 = none */
	int			retry_after;	/* seconds, as the server asks; -1 = it does not */
	int64		requests_left;	/* X-RateLimit-Remaining and its kin; -1 = not said */
	int64		limit_reset_ms; /* until there are more; -1 = not said */
	int64		elapsed_us;		/* from sending until the answer was here */
	int64		wire_bytes;		/* of the answer, headers included */
	void	   *owner;
} HttpExchange;

extern HttpEngine *http_create(void);
extern void http_destroy(HttpEngine *engine);	/* drops what is under way */
/* Send.  What cannot be sent comes back from http_next() as HTTP_REFUSED; throws only for lack of memory. */
extern void http_submit(HttpEngine *engine, const HttpRequest *request);
/* Drop a request under way whose owner is this one. */
extern void http_cancel(HttpEngine *engine, void *owner);
extern int	http_fd(HttpEngine *engine);
/* Milliseconds until http_poll() must be called even if nothing is readable; -1 = no need. */
extern long http_deadline(HttpEngine *engine);
extern void http_poll(HttpEngine *engine);
extern HttpExchange *http_next(HttpEngine *engine);
extern void http_free(HttpExchange *exchange);

/* http_url.c: palloc'd, or NULL if that is no URL of ours */
extern char *http_url_resolve(const char *base, const char *reference);
extern bool http_url_same_origin(const char *a, const char *b);
extern char *http_url_path(const char *url, bool decoded);
extern char *http_url_escape(const char *text);
extern char *http_url_add(const char *url, const char *name, const char *value);
extern char *http_next_link(const char *header);	/* the reference of rel=next in a header Link */

/* http_address.c: may this address be dialled by a source without allow_private? */
struct sockaddr;
extern bool http_address_public(const struct sockaddr *address);

#endif							/* CONTACTSYNC_HTTP_H */
