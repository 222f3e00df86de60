/*
 * http_socket.c
 *		The sockets of the HTTP engine.
 *
 * libcurl says which descriptors it waits for.  It lets go of a connection's
 * whenever a request has ended, only to ask for it again with the next one; so a
 * socket that was opened here stays in the epoll descriptor until something
 * happens on it that nobody waits for, or it is closed, here too.
 *
 * Nothing here throws or pallocs: libcurl calls it.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "storage/fd.h"

#include "http/http_private.h"

#define MOST_SOCKETS	65536
#define EVENTS_AT_ONCE	64

bool
http_sockets_init(HttpEngine *engine)
{
	struct rlimit limit;

	engine->nsockets = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < MOST_SOCKETS ? (int) limit.rlim_cur : MOST_SOCKETS;
	engine->sockets = calloc(engine->nsockets, sizeof(HttpSocket));
	return engine->sockets != NULL;
}

static HttpSocket *
socket_at(HttpEngine *engine, curl_socket_t fd)
{
	return fd >= 0 && fd < engine->nsockets ? &engine->sockets[fd] : NULL;
}

static void
wait_for(HttpEngine *engine, curl_socket_t fd, uint32 events, bool known)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	if (events == 0)
		(void) epoll_ctl(engine->epfd, EPOLL_CTL_DEL, fd, NULL);
	else if (!known || epoll_ctl(engine->epfd, EPOLL_CTL_MOD, fd, &event) != 0)
	{
		if (epoll_ctl(engine->epfd, EPOLL_CTL_ADD, fd, &event) != 0 && errno == EEXIST)
			(void) epoll_ctl(engine->epfd, EPOLL_CTL_MOD, fd, &event);
	}
}

int
http_watch_socket(CURL *easy, curl_socket_t fd, int what, void *userp, void *socketp)
{
	HttpEngine *engine = userp;
	HttpSocket *s = socket_at(engine, fd);
	uint32		events = 0;

	if (what != CURL_POLL_REMOVE)
		events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (s == NULL)
	{
		wait_for(engine, fd, events, true);
		return 0;
	}
	s->wanted = events;
	if (s->registered == events || (events == 0 && s->ours))
		return 0;
	wait_for(engine, fd, events, s->registered != 0);
	s->registered = events;
	return 0;
}

/* Knows the address that is dialled, whatever the name stood for before. */
curl_socket_t
http_open_socket(void *userp, curlsocktype purpose, struct curl_sockaddr *address)
{
	HttpTransfer *t = userp;
	HttpSocket *s;
	curl_socket_t fd;

	if (!t->allow_private && !http_address_public(&address->addr))
	{
		t->address_refused = true;
		return CURL_SOCKET_BAD;
	}
	if (!AcquireExternalFD())
		return CURL_SOCKET_BAD;
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
	{
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	s = socket_at(t->engine, fd);
	if (s)
	{
		s->ours = true;
		s->wanted = s->registered = 0;
	}
	return fd;
}

int
http_close_socket(void *userp, curl_socket_t fd)
{
	HttpSocket *s = socket_at(userp, fd);

	if (s)
	{
		s->ours = false;
		s->wanted = s->registered = 0;
	}
	ReleaseExternalFD();
	return close(fd);
}

/*
 * Called before a request is sent.  A connection that another source opened may
 * serve this one too: so the address is looked at once more.  And libcurl comes
 * here again when the server closed a connection that was kept, without a word;
 * whether it had read the request, nobody knows.
 */
int
http_check_connection(void *userp, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	HttpTransfer *t = userp;
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	bool		allowed = t->allow_private ||
		(inet_pton(AF_INET, remote_ip, &v4.sin_addr) == 1 && http_address_public((struct sockaddr *) &v4)) ||
		(inet_pton(AF_INET6, remote_ip, &v6.sin6_addr) == 1 && http_address_public((struct sockaddr *) &v6));

	if (!allowed)
	{
		t->address_refused = true;
		return CURL_PREREQFUNC_ABORT;
	}
	if (t->exchange->sent && t->once)
	{
		t->repeated = true;
		return CURL_PREREQFUNC_ABORT;
	}
	t->exchange->sent = true;
	if (t->host->opener == t)
	{
		t->host->opener = NULL;
		t->host->nconnected++;
	}
	return CURL_PREREQFUNC_OK;
}

void
http_sockets_poll(HttpEngine *engine)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int			n = epoll_wait(engine->epfd, events, EVENTS_AT_ONCE, 0);
	int			running;

	for (int i = 0; i < n; i++)
	{
		curl_socket_t fd = events[i].data.fd;
		HttpSocket *s = socket_at(engine, fd);
		int			what = 0;

		if (s && s->wanted == 0)
		{
			/* a connection that is kept, and that the server closes */
			if (s->registered)
				wait_for(engine, fd, 0, true);
			s->registered = 0;
			continue;
		}
		if (events[i].events & (EPOLLIN | EPOLLHUP))
			what |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			what |= CURL_CSELECT_OUT;
		if (events[i].events & EPOLLERR)
			what |= CURL_CSELECT_ERR;
		(void) curl_multi_socket_action(engine->multi, fd, what, &running);
	}
}
