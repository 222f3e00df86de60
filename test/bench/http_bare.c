/*
 * http_bare.c
 *		What libcurl alone can do: a loop on its multi interface with sockets in
 *		epoll, to measure the HTTP engine by.
 *
 * http_bare URL REQUESTS IN-FLIGHT
 *
 * One easy handle for each request in flight, set up once and added again when it
 * is done; connections are kept.  Prints requests, seconds, and CPU seconds.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

typedef struct Slot
{
	CURL	   *easy;
	size_t		len;
	char		body[65536];
} Slot;

static int	epfd;
static long long deadline = -1; /* us; cleared only when it fires */

static long long
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int
watch(CURL *easy, curl_socket_t fd, int what, void *multi, void *known)
{
	struct epoll_event event = {.data.fd = fd};

	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	epoll_ctl(epfd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
	if (!known)
		curl_multi_assign(multi, fd, &epfd);
	return 0;
}

static int
set_timer(CURLM *multi, long ms, void *arg)
{
	deadline = ms < 0 ? -1 : now_us() + ms * 1000;
	return 0;
}

static size_t
take(char *data, size_t size, size_t n, void *arg)
{
	Slot	   *slot = arg;

	if (slot->len + n > sizeof(slot->body))
		return 0;
	memcpy(slot->body + slot->len, data, n);
	slot->len += n;
	return n;
}

int
main(int argc, char **argv)
{
	long		total = atol(argv[2]);
	int			in_flight = atoi(argv[3]);
	long		started = 0;
	long		done = 0;
	long long	began;
	CURLM	   *multi;
	struct rusage usage;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	multi = curl_multi_init();
	epfd = epoll_create1(0);
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, multi);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) in_flight);
	began = now_us();
	for (; started < in_flight && started < total; started++)
	{
		Slot	   *slot = calloc(1, sizeof(Slot));

		slot->easy = curl_easy_init();
		curl_easy_setopt(slot->easy, CURLOPT_URL, argv[1]);
		curl_easy_setopt(slot->easy, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(slot->easy, CURLOPT_PROXY, "");
		curl_easy_setopt(slot->easy, CURLOPT_WRITEFUNCTION, take);
		curl_easy_setopt(slot->easy, CURLOPT_WRITEDATA, slot);
		curl_easy_setopt(slot->easy, CURLOPT_PRIVATE, slot);
		curl_multi_add_handle(multi, slot->easy);
	}
	while (done < total)
	{
		struct epoll_event events[64];
		long long	wait = deadline < 0 ? 1000000 : deadline - now_us();
		int			n = epoll_wait(epfd, events, 64, wait <= 0 ? 0 : (int) ((wait + 999) / 1000));
		int			running;
		CURLMsg    *message;

		for (int i = 0; i < n; i++)
			curl_multi_socket_action(multi, events[i].data.fd,
									 (events[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
									 (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
									 (events[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0), &running);
		if (deadline >= 0 && deadline <= now_us())
		{
			deadline = -1;
			curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
		}
		while ((message = curl_multi_info_read(multi, &n)) != NULL)
		{
			CURL	   *easy = message->easy_handle;
			CURLcode	code = message->data.result;
			long		status = 0;
			Slot	   *slot;

			curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &slot);
			curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
			if (code != CURLE_OK || status != 200 || slot->len == 0)
			{
				fprintf(stderr, "request failed: %s, status %ld\n", curl_easy_strerror(code), status);
				return 1;
			}
			curl_multi_remove_handle(multi, easy);
			done++;
			slot->len = 0;
			if (started < total)
			{
				started++;
				curl_multi_add_handle(multi, easy);
			}
		}
	}
	began = now_us() - began;
	getrusage(RUSAGE_SELF, &usage);
	printf("%ld %.6f %.6f\n", done, began / 1e6, usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		   (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	return 0;
}
