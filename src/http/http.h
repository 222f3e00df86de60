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
 *	http_engine.c		requests from http_submit() to http_next(); whose turn it is
 *	http_transfer.c		a request as an easy handle of libcurl
 *	http_socket.c		the sockets: which are opened, and which are waited for
 *	http_answer.c		what comes back
 *	http_address.c		which addresses are public
 *	http_url.c			URLs
 *
 * Requests wait in line, a line for each server, until there is a connection
 * for them (contactsync.http_connections, contactsync.http_host_connections) and
 * memory for their answer (contactsync.http_memory); their time runs from when
 * they go.  Connections are kept and used again; over TLS, HTTP/2 is spoken where
 * the server does, and requests then share a connection.
 *
 * Callbacks that libcurl calls never throw and never palloc.  A request and its
 * response live in malloc'd memory that belongs to one HttpExchange; who took it
 * from http_next() gives it back with http_free(), before the engine ends, and
 * soon: until then it counts against contactsync.http_memory.
 *
 * A request leaves this machine only as its source allows: https unless
 * allow_http, public addresses unless allow_private (checked on the address
 * that is dialled), no redirects, TLS verified, no proxy from the environment.
 * What changes something (POST, PATCH) is never sent twice by the engine itself.
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
	const char *ca;				/* PEM: who vouches for the server; NULL = contactsync.http_ca_file, or the system's */
	const char *client_certificate; /* PEM, with the chain; NULL = none, else there is a key */
	const char *client_key;		/* PEM, without a passphrase */
	bool		allow_http;
	bool		allow_private;
	void	   *owner;			/* comes back with the exchange, */
	int			tag;			/* and what kind of owner it is */
} HttpRequest;

/* Why there is no answer to read. */
typedef enum HttpFault
{
	HTTP_ANSWERED,				/* there is one: see status */
	HTTP_REFUSED,				/* not sent: the URL or its address is not allowed, or a certificate is no good */
	HTTP_TOO_LARGE,				/* the body exceeds contactsync.http_max_body, or the headers 128 kB */
	HTTP_FAILED					/* no connection, cut off, timed out */
} HttpFault;

/* What became of a request, and so what to do about it. */
typedef enum HttpClass
{
	HTTP_CLASS_FINE,			/* status below 400 */
	HTTP_CLASS_TRANSIENT,		/* it may be asked again: it was not carried out, or failed for now */
	HTTP_CLASS_RATE,			/* the same, but not so soon */
	HTTP_CLASS_AUTH,			/* the credentials are refused */
	HTTP_CLASS_PERMANENT,		/* asking again would change nothing */
	HTTP_CLASS_UNKNOWN			/* it may have been carried out: the answer is lost; transient to who only reads */
} HttpClass;

typedef struct HttpExchange
{
	HttpFault	fault;
	int			status;			/* of HTTP; 0 without an answer */
	bool		sent;			/* the request may have reached the server */
	int			version;		/* of HTTP: 1 or 2; 0 without an answer */
	char		error[256];		/* for a person; no secrets */
	char	   *body;			/* NUL-terminated; never NULL */
	size_t		len;
	char		content_type[128];
	char	   *location;		/* header; never NULL */
	char	   *link;			/* the same */
	bool		link_cut;		/* it is longer than 4 kB */
	int64		date;			/* header Date, in seconds since 1970; -1 = none */
	int			retry_after;	/* seconds, as the server asks, a day at most; -1 = it does not */
	int64		requests_left;	/* X-RateLimit-Remaining and its kin; -1 = not said */
	int64		limit_reset_ms; /* until there are more, a day at most; -1 = not said */
	int64		elapsed_us;		/* from when it went to its end */
	int64		wire_bytes;		/* of the answer, headers included */
	void	   *owner;
	HttpEngine *engine;
	size_t		held;			/* of the engine's memory */
	int			tag;
} HttpExchange;

extern HttpEngine *http_create(void);
extern void http_destroy(HttpEngine *engine);	/* drops what is under way */
/* Send, now or in turn.  What cannot be sent comes back from http_next() as HTTP_REFUSED; throws only for lack of memory. */
extern void http_submit(HttpEngine *engine, const HttpRequest *request);
/* Drop the requests, under way, waiting or answered but not taken, whose owner is this one. */
extern void http_cancel(HttpEngine *engine, void *owner);
/* How many more requests are of use: so many that none waits for long. */
extern int	http_room(HttpEngine *engine);
extern int	http_fd(HttpEngine *engine);
/* Milliseconds until http_poll() must be called even if nothing is readable; -1 = no need. */
extern long http_deadline(HttpEngine *engine);
extern void http_poll(HttpEngine *engine);
extern HttpExchange *http_next(HttpEngine *engine);
extern void http_free(HttpExchange *exchange);

extern HttpClass http_classify(const HttpExchange *exchange);

/* http_url.c: palloc'd, or NULL if that is no URL of ours */
extern char *http_url_resolve(const char *base, const char *reference);
extern bool http_url_same_origin(const char *a, const char *b);
/* A pattern is host or *.domain, and :port where that is not the usual one. */
extern bool http_url_on_host(const char *url, const char *pattern);
extern char *http_url_host(const char *url);	/* and its port, if that is not the usual one */
extern char *http_url_path(const char *url, bool decoded);
extern char *http_url_escape(const char *text);
extern char *http_url_add(const char *url, const char *name, const char *value);
extern char *http_next_link(const char *header);	/* the reference of rel=next in a header Link */

/* http_address.c: may this address be dialled by a source without allow_private? */
struct sockaddr;
extern bool http_address_public(const struct sockaddr *address);

#endif							/* CONTACTSYNC_HTTP_H */
