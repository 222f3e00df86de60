/*
 * driver.c
 *		The HTTP engine without a server around it, for tests: commands from
 *		standard input, a line each, and what becomes of requests on standard output.
 *
 *	set SETTING VALUE		as after a reload
 *	send TAG URL [WORD...]	n=COUNT, method=, body=, header=, user=, password=, token=,
 *							ca=FILE, certificate=FILE, key=FILE, http (allow_http),
 *							private (allow_private)
 *	cancel TAG				those of this tag
 *	wait [MS]				until all are answered, or so long
 *	await N					until so many more are answered
 *	keep / give				take answers without giving them back; give them back
 *	stat					what there is of connections, memory and time since the last
 *
 * An answer is a line "TAG name=value ... | error | body", the body up to 300 bytes.
 */
#include "postgres.h"

#include <poll.h>

#include "storage/fd.h"

#include "guc.h"
#include "http/http_private.h"


#define MOST_KEPT	100000

static HttpEngine *engine;
static HttpExchange *kept[MOST_KEPT];
static int	nkept = 0;
static bool keeping = false;
static int	under_way = 0;
static int	most_active = 0;
static int	most_connections = 0;
static size_t most_held = 0;
static int64 slowest_poll = 0;

static void
fail(const char *what)
{
	fprintf(stderr, "driver: %s\n", what);
	exit(2);
}

/* Into a buffer that the next line uses again. */
static char *
slurp(const char *path, int which)
{
	static char texts[3][65536];
	FILE	   *f = fopen(path, "r");
	size_t		n = f ? fread(texts[which], 1, sizeof(texts[which]) - 1, f) : 0;

	if (n == 0)
		fail(path);
	texts[which][n] = '\0';
	fclose(f);
	return texts[which];
}

static void
set(const char *name, const char *value)
{
	static const struct
	{
		const char *name;
		int		   *setting;
	}			ints[] =
	{
		{"http_connections", &guc_http_connections},
		{"http_host_connections", &guc_http_host_connections},
		{"http_timeout", &guc_http_timeout},
		{"http_stall_timeout", &guc_http_stall_timeout},
		{"http_max_body", &guc_http_max_body},
		{"http_memory", &guc_http_memory},
		{"descriptors", &max_safe_fds},
	};

	for (int i = 0; i < lengthof(ints); i++)
	{
		if (strcmp(ints[i].name, name) == 0)
		{
			*ints[i].setting = atoi(value);
			return;
		}
	}
	if (strcmp(name, "http_ca_file") != 0)
		fail(name);
	free(guc_http_ca_file);
	guc_http_ca_file = strdup(value);
}

/* Tags live for ever: they are owners. */
static char *
find_tag(const char *name)
{
	static char *tags[1000];
	int			i;

	for (i = 0; i < lengthof(tags) && tags[i]; i++)
		if (strcmp(tags[i], name) == 0)
			return tags[i];
	if (i == lengthof(tags))
		fail("too many tags");
	return tags[i] = strdup(name);
}

static void
send_requests(char *line)
{
	HttpRequest r = {.method = "GET"};
	const char *headers[8];
	char	   *word = strtok(line, " ");
	int			n = 1;

	r.owner = find_tag(word);
	r.url = strtok(NULL, " ");
	r.headers = headers;
	while ((word = strtok(NULL, " ")) != NULL)
	{
		char	   *value = strchr(word, '=');

		if (value)
			*value++ = '\0';
		if (strcmp(word, "n") == 0)
			n = atoi(value);
		else if (strcmp(word, "method") == 0)
			r.method = value;
		else if (strcmp(word, "body") == 0)
			r.body = value;
		else if (strcmp(word, "header") == 0)
			headers[r.nheaders++] = value;
		else if (strcmp(word, "user") == 0)
			r.username = value;
		else if (strcmp(word, "password") == 0)
			r.password = value;
		else if (strcmp(word, "token") == 0)
			r.token = value;
		else if (strcmp(word, "ca") == 0)
			r.ca = slurp(value, 0);
		else if (strcmp(word, "certificate") == 0)
			r.client_certificate = slurp(value, 1);
		else if (strcmp(word, "key") == 0)
			r.client_key = slurp(value, 2);
		else if (strcmp(word, "http") == 0)
			r.allow_http = true;
		else if (strcmp(word, "private") == 0)
			r.allow_private = true;
		else
			fail(word);
	}
	under_way += n;
	while (n-- > 0)
		http_submit(engine, &r);
}

static void
show(const HttpExchange *x)
{
	static const char *const faults[] = {"answered", "refused", "too_large", "failed"};
	static const char *const classes[] = {"fine", "transient", "rate", "auth", "permanent", "unknown"};

	printf("%s fault=%s status=%d class=%s sent=%d version=%d len=%zu date=%lld retry_after=%d left=%lld reset_ms=%lld ms=%lld type=%s location=%s link=%s | %s | %.300s\n",
		   (const char *) x->owner, faults[x->fault], x->status, classes[http_classify(x)], x->sent, x->version, x->len,
		   (long long) x->date, x->retry_after, (long long) x->requests_left, (long long) x->limit_reset_ms,
		   (long long) x->elapsed_us / 1000, x->content_type, x->location, x->link, x->error, x->body);
}

static void
look(void)
{
	most_active = Max(most_active, engine->nactive);
	most_connections = Max(most_connections, engine->nconnections);
	most_held = Max(most_held, engine->held);
}

/* Until n more are answered, or ms have passed. */
static void
work(int n, int64 ms)
{
	int64		until = http_now_us() + ms * 1000;

	while (n > 0 && under_way > 0 && http_now_us() < until)
	{
		long		wait = http_deadline(engine);
		struct pollfd fd = {.fd = http_fd(engine), .events = POLLIN};
		int64		began;
		HttpExchange *x;

		wait = Min(wait < 0 ? 1000 : wait, (until - http_now_us()) / 1000 + 1);
		(void) poll(&fd, 1, (int) wait);
		began = http_now_us();
		http_poll(engine);
		look();
		while ((x = http_next(engine)) != NULL)
		{
			n--;
			under_way--;
			show(x);
			if (!keeping)
				http_free(x);
			else if (nkept == MOST_KEPT)
				fail("too many kept");
			else
				kept[nkept++] = x;
			look();
		}
		slowest_poll = Max(slowest_poll, http_now_us() - began);
	}
}

static int
not_taken(void)
{
	int			n = engine->nactive + engine->nwaiting;

	for (HttpTransfer *t = engine->done; t; t = t->next)
		n++;
	return n;
}

static void
stat(void)
{
	printf("stat active=%d waiting=%d most_active=%d most_connections=%d held=%zu most_held=%zu slowest_poll_ms=%lld room=%d\n",
		   engine->nactive, engine->nwaiting, most_active, most_connections, engine->held, most_held,
		   (long long) slowest_poll / 1000, http_room(engine));
	most_active = most_connections = 0;
	most_held = 0;
	slowest_poll = 0;
}

int
main(void)
{
	static char line[16384];

	engine = http_create();
	while (fgets(line, sizeof(line), stdin))
	{
		char	   *rest;

		line[strcspn(line, "\n")] = '\0';
		rest = line + strcspn(line, " ");
		if (*rest)
			*rest++ = '\0';
		if (strcmp(line, "set") == 0)
		{
			char	   *value = strchr(rest, ' ');

			*value++ = '\0';
			set(rest, value);
		}
		else if (strcmp(line, "send") == 0)
			send_requests(rest);
		else if (strcmp(line, "cancel") == 0)
		{
			/* what is dropped never comes back */
			int			before = not_taken();

			http_cancel(engine, find_tag(rest));
			under_way -= before - not_taken();
		}
		else if (strcmp(line, "wait") == 0)
			work(INT_MAX, *rest ? atoi(rest) : 120000);
		else if (strcmp(line, "await") == 0)
			work(atoi(rest), 120000);
		else if (strcmp(line, "keep") == 0)
			keeping = true;
		else if (strcmp(line, "give") == 0)
		{
			keeping = false;
			while (nkept > 0)
				http_free(kept[--nkept]);
		}
		else if (strcmp(line, "stat") == 0)
			stat();
		else
			fail(line);
		fflush(stdout);
	}
	if (nkept > 0)
		fail("answers are kept at the end");
	http_destroy(engine);
	return 0;
}
