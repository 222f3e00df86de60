/*
 * http_engine.c
 *		The HTTP engine alone, with nothing of the server around it.
 *
 * http_engine URL REQUESTS IN-FLIGHT
 *
 * A request is submitted for each that is answered, as who uses the engine does.
 * Prints requests, seconds, and CPU seconds.
 */
#include "postgres.h"

#include <poll.h>
#include <sys/resource.h>

#include "guc.h"
#include "http/http_private.h"

int
main(int argc, char **argv)
{
	long		total = atol(argv[2]);
	int			in_flight = atoi(argv[3]);
	long		started = 0;
	long		done = 0;
	HttpRequest request = {.method = "GET", .url = argv[1], .allow_http = true, .allow_private = true};
	HttpEngine *engine;
	int64		began;
	struct rusage usage;

	guc_http_connections = guc_http_host_connections = in_flight;
	engine = http_create();
	began = http_now_us();
	for (; started < in_flight && started < total; started++)
		http_submit(engine, &request);
	while (done < total)
	{
		struct pollfd fd = {.fd = http_fd(engine), .events = POLLIN};
		long		wait = http_deadline(engine);
		HttpExchange *x;

		(void) poll(&fd, 1, wait < 0 ? 1000 : (int) wait);
		http_poll(engine);
		while ((x = http_next(engine)) != NULL)
		{
			if (x->fault != HTTP_ANSWERED || x->status != 200 || x->len == 0)
			{
				fprintf(stderr, "request failed: %s, status %d\n", x->error, x->status);
				return 1;
			}
			http_free(x);
			done++;
			if (started < total)
			{
				started++;
				http_submit(engine, &request);
			}
		}
	}
	began = http_now_us() - began;
	getrusage(RUSAGE_SELF, &usage);
	printf("%ld %.6f %.6f\n", done, began / 1e6, usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		   (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	return 0;
}
