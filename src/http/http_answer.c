/*
 * http_answer.c
 *		What comes back: headers, body, and what became of a request.
 *
 * A body is collected in memory, up to contactsync.http_max_body, counted after it
 * is decompressed.  All bodies under way, and those that nobody has given back
 * yet, share contactsync.http_memory: beyond it, connections are not read until
 * there is room.  One body may always go on, so that something ends; and requests
 * that share a connection, which cannot be left unread, may take twice as much
 * before they fail for now.
 *
 * Nothing here throws or pallocs: libcurl calls it.
 */
#include "postgres.h"

#include <time.h>

#include "guc.h"
#include "http/http_private.h"

#define LONGEST_HINT	(256 * 1024)	/* of a body, that is believed before it comes */
#define LONGEST_LOCATION	2048
#define LONGEST_LINK	4096

char		http_nothing[1] = "";

/* Name and value of a header, the value without white space around it. */
typedef struct Header
{
	const char *name;
	size_t		name_len;
	const char *value;
	size_t		len;
} Header;

size_t
http_memory(void)
{
	return (size_t) guc_http_memory * 1024;
}

static bool
split_header(const char *line, size_t len, Header *h)
{
	const char *colon = memchr(line, ':', len);
	const char *end = line + len;

	if (colon == NULL)
		return false;
	h->name = line;
	h->name_len = colon - line;
	for (h->value = colon + 1; h->value < end && (*h->value == ' ' || *h->value == '\t'); h->value++)
		;
	while (end > h->value && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
		end--;
	h->len = end - h->value;
	return true;
}

static bool
is_named(const Header *h, const char *name)
{
	return pg_strncasecmp(h->name, name, h->name_len) == 0;
}

static void
copy_value(char *to, size_t size, const Header *h)
{
	size_t		len = Min(h->len, size - 1);

	memcpy(to, h->value, len);
	to[len] = '\0';
}

/* A number of digits, no more than most; false if it is none. */
static bool
read_number(const Header *h, int64 most, int64 *number)
{
	size_t		i;

	*number = 0;
	for (i = 0; i < h->len && h->value[i] >= '0' && h->value[i] <= '9'; i++)
		*number = Min(*number * 10 + (h->value[i] - '0'), most);
	/* as in "5;w=60", "5, 100" and "5.5" */
	return i > 0 && (i == h->len || strchr(" ;,.", h->value[i]) != NULL);
}

/* Two digits, or more than two of them. */
static int
two_digits(const char *p)
{
	return p[0] >= '0' && p[0] <= '9' && p[1] >= '0' && p[1] <= '9' ? (p[0] - '0') * 10 + p[1] - '0' : 10000;
}

/* Days since 1970 in the Gregorian calendar, counted from March on. */
static int64
days_since_1970(int year, int month, int day)
{
	int			y = month > 2 ? year : year - 1;
	int			m = month > 2 ? month - 3 : month + 9;

	return (int64) y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

/*
 * Seconds since 1970; -1 = no date.  The form that servers have to send, as in
 * "Sun, 06 Nov 1994 08:49:37 GMT", is read at once, for most answers have one.
 */
static int64
read_date(const Header *h)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char		date[64];

	copy_value(date, sizeof(date), h);
	if (h->len == 29 && date[3] == ',' && date[4] == ' ' && date[7] == ' ' && date[11] == ' ' && date[16] == ' ' &&
		date[19] == ':' && date[22] == ':' && strcmp(date + 25, " GMT") == 0)
	{
		int			day = two_digits(date + 5);
		int			year = two_digits(date + 12) * 100 + two_digits(date + 14);
		int			hour = two_digits(date + 17);
		int			minute = two_digits(date + 20);
		int			second = two_digits(date + 23);
		const char *month;

		date[11] = '\0';
		month = strstr(months, date + 8);
		date[11] = ' ';
		if (month && (month - months) % 3 == 0 && day >= 1 && day <= 31 && year >= 1970 && year <= 9999 &&
			hour < 24 && minute < 60 && second <= 60)
			return (days_since_1970(year, (int) (month - months) / 3 + 1, day) * 24 + hour) * 3600 + minute * 60 + second;
	}
	return (int64) curl_getdate(date, NULL);
}

/* Seconds, or a date.  One that is past, or a negative number, asks for nothing. */
static void
take_retry_after(HttpTransfer *t, const Header *h)
{
	int64		seconds;

	if (read_number(h, HTTP_MAX_WAIT_S, &seconds))
		t->exchange->retry_after = (int) seconds;
	else if ((seconds = read_date(h)) > 0)
		t->retry_at = seconds;
}

/*
 * X-RateLimit-Remaining and -Reset, RateLimit-..., X-HubSpot-RateLimit-...: a time
 * is a number of seconds, or one since 1970, in seconds or milliseconds.
 */
static void
take_rate_limit(HttpExchange *x, const Header *h)
{
	char		name[64];
	int64		value;

	if (h->name_len >= sizeof(name))
		return;
	for (size_t i = 0; i < h->name_len; i++)
		name[i] = pg_ascii_tolower((unsigned char) h->name[i]);
	name[h->name_len] = '\0';
	if ((strstr(name, "ratelimit-") == NULL && strstr(name, "rate-limit-") == NULL) || strstr(name, "daily"))
		return;
	if (!read_number(h, INT64CONST(100000000000000), &value))
		return;
	if (strstr(name, "limit-remaining"))
		x->requests_left = value;
	else if (strstr(name, "limit-interval-milliseconds"))
		x->limit_reset_ms = value;
	else if (strstr(name, "limit-reset"))
	{
		if (value < 1000000000)
			x->limit_reset_ms = value * 1000;
		else
			x->limit_reset_ms = Max((value < INT64CONST(100000000000) ? value * 1000 : value) - (int64) time(NULL) * 1000, 0);
	}
	x->limit_reset_ms = Min(x->limit_reset_ms, INT64CONST(1000) * HTTP_MAX_WAIT_S);
}

/* A text of its own, or nothing; what is there already goes before it, parted by a comma. */
static bool
keep_value(char **text, const Header *h, size_t most)
{
	char	   *old = *text;
	size_t		n = strlen(old);
	char	   *longer;

	if (n + h->len + 3 > most)
		return false;
	longer = malloc(n + h->len + 3);
	if (longer == NULL)
		return false;
	*text = longer;
	snprintf(longer, n + h->len + 3, "%s%s%.*s", old, n ? ", " : "", (int) h->len, h->value);
	if (old != http_nothing)
		free(old);
	return true;
}

static void
drop_value(char **text)
{
	if (*text != http_nothing)
		free(*text);
	*text = http_nothing;
}

/* A response begins, and an interim one before it was not the answer. */
static void
begin_response(HttpTransfer *t, const char *line, size_t len)
{
	HttpExchange *x = t->exchange;

	x->version = line[5] == '2' ? 2 : 1;
	x->content_type[0] = '\0';
	drop_value(&x->location);
	drop_value(&x->link);
	x->link_cut = false;
	x->retry_after = -1;
	x->date = x->requests_left = x->limit_reset_ms = -1;
	t->retry_at = 0;
	t->length = 0;
}

size_t
http_take_header(char *line, size_t size, size_t n, void *userp)
{
	HttpTransfer *t = userp;
	HttpExchange *x = t->exchange;
	size_t		len = size * n;
	int64		number;
	Header		h;

	t->header_bytes += len;
	if (t->header_bytes > HTTP_MAX_HEADER_BYTES)
	{
		t->headers_too_large = true;
		return 0;
	}
	/* what comes after the body is none of what is looked for */
	if (t->in_body)
		return len;
	if (len > 5 && memcmp(line, "HTTP/", 5) == 0)
	{
		begin_response(t, line, len);
		return len;
	}
	if (!split_header(line, len, &h))
		return len;
	switch (h.name_len)
	{
		case 4:
			if (is_named(&h, "date"))
				x->date = read_date(&h);
			else if (is_named(&h, "link"))
				x->link_cut |= !keep_value(&x->link, &h, LONGEST_LINK);
			break;
		case 8:
			if (is_named(&h, "location"))
			{
				drop_value(&x->location);
				(void) keep_value(&x->location, &h, LONGEST_LOCATION);
			}
			break;
		case 11:
			if (is_named(&h, "retry-after"))
				take_retry_after(t, &h);
			break;
		case 12:
			if (is_named(&h, "content-type"))
				copy_value(x->content_type, sizeof(x->content_type), &h);
			break;
		case 14:
			if (is_named(&h, "content-length") && read_number(&h, t->max_body, &number))
				t->length = number;
			break;
		default:
			if (h.name_len >= sizeof("ratelimit-reset") - 1)
				take_rate_limit(x, &h);
			break;
	}
	return len;
}

/* Count memory for a body of this size; false if there is none to be had. */
static bool
hold(HttpTransfer *t, size_t size)
{
	HttpEngine *engine = t->engine;

	if (size <= t->held)
		return true;
	if (engine->held + size - t->held > http_memory() && engine->favoured != t)
	{
		/* what is out comes back, and makes room */
		if (engine->favoured == NULL && engine->nout == 0)
			engine->favoured = t;
		else if (t->exchange->version != 2 || engine->held + size - t->held > 2 * http_memory())
			return false;
	}
	engine->held += size - t->held;
	t->held = size;
	return true;
}

size_t
http_take_body(char *data, size_t size, size_t n, void *userp)
{
	HttpTransfer *t = userp;
	HttpExchange *x = t->exchange;
	size_t		len = size * n;

	t->in_body = true;
	if (len > t->max_body - x->len)
	{
		t->too_large = true;
		return 0;
	}
	if (x->len + len + 1 > t->size)
	{
		size_t		want = t->size ? t->size * 2 : Min(t->length, LONGEST_HINT) + 1;
		char	   *body;

		/* not more than it is, if that is what comes */
		if (t->length >= x->len + len)
			want = Min(want, t->length + 1);
		want = Max(want, x->len + len + 1);

		if (!hold(t, want))
		{
			if (x->version == 2)
			{
				t->crowded = true;
				return 0;
			}
			t->engine->npaused += !t->paused;
			t->paused = true;
			return CURL_WRITEFUNC_PAUSE;
		}
		body = realloc(x->body, want);
		if (body == NULL)
		{
			t->crowded = true;
			return 0;
		}
		x->body = body;
		t->size = want;
	}
	memcpy(x->body + x->len, data, len);
	x->len += len;
	x->body[x->len] = '\0';
	return len;
}

static void
refuse(HttpExchange *x, const char *why, const char *details)
{
	x->fault = HTTP_REFUSED;
	x->sent = false;
	snprintf(x->error, sizeof(x->error), "%s%s%s", why, details[0] ? ": " : "", details);
}

/* What became of a finished request, in our terms. */
void
http_settle(HttpTransfer *t, CURLcode code)
{
	HttpExchange *x = t->exchange;
	const char *details = t->curl_error[0] ? t->curl_error : curl_easy_strerror(code);
	curl_off_t	size = 0;
	long		status = 0;

	(void) curl_easy_getinfo(t->easy, CURLINFO_SIZE_DOWNLOAD_T, &size);
	x->wire_bytes = size + t->header_bytes;
	if (code == CURLE_OK)
	{
		(void) curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
		x->status = status;
		/* counted from the server's own clock, which may be another one */
		if (t->retry_at > 0)
			x->retry_after = (int) Max(Min(t->retry_at - (x->date > 0 ? x->date : (int64) time(NULL)), HTTP_MAX_WAIT_S), -1);
		if (x->retry_after == 0 || x->retry_after < -1)
			x->retry_after = -1;
		x->fault = HTTP_ANSWERED;
		return;
	}
	x->fault = HTTP_FAILED;
	x->version = 0;
	if (t->address_refused)
		refuse(x, "the server's address is private, and the source does not allow that", "");
	else if (t->headers_too_large)
	{
		x->fault = HTTP_TOO_LARGE;
		strlcpy(x->error, "the response has more than 128 kB of headers", sizeof(x->error));
	}
	else if (t->too_large || code == CURLE_FILESIZE_EXCEEDED)
	{
		x->fault = HTTP_TOO_LARGE;
		strlcpy(x->error, "the response is larger than contactsync.http_max_body", sizeof(x->error));
	}
	else if (t->crowded)
		strlcpy(x->error, "the responses under way take all of contactsync.http_memory", sizeof(x->error));
	else if (t->repeated)
		strlcpy(x->error, "the server closed the connection without an answer", sizeof(x->error));
	else
	{
		switch (code)
		{
			case CURLE_UNSUPPORTED_PROTOCOL:
			case CURLE_URL_MALFORMAT:
			case CURLE_LOGIN_DENIED:	/* a user in the URL */
				/* the first of them is also what an answer is that is not HTTP */
				if (!x->sent)
					refuse(x, "the URL is not one that the source may ask", "");
				else
					strlcpy(x->error, details, sizeof(x->error));
				break;
			case CURLE_PEER_FAILED_VERIFICATION:
				refuse(x, "the server is not trusted", details);
				break;
			case CURLE_SSL_CACERT_BADFILE:
			case CURLE_SSL_CERTPROBLEM:
				refuse(x, "a certificate or key of the source cannot be used", details);
				break;
			default:
				strlcpy(x->error, details, sizeof(x->error));
		}
	}
}

HttpClass
http_classify(const HttpExchange *x)
{
	if (x->fault == HTTP_FAILED)
		return x->sent ? HTTP_CLASS_UNKNOWN : HTTP_CLASS_TRANSIENT;
	if (x->fault != HTTP_ANSWERED)
		return HTTP_CLASS_PERMANENT;
	switch (x->status)
	{
		case 408:				/* request timeout */
		case 423:				/* locked */
		case 425:				/* too early */
			return HTTP_CLASS_TRANSIENT;
		case 429:
			return HTTP_CLASS_RATE;
		case 401:
			return HTTP_CLASS_AUTH;
		case 501:				/* not implemented */
		case 505:				/* version of HTTP */
			return HTTP_CLASS_PERMANENT;
		case 502:				/* a gateway that has lost the answer */
		case 504:
			return HTTP_CLASS_UNKNOWN;
		default:
			return x->status >= 500 ? HTTP_CLASS_TRANSIENT : x->status >= 400 ? HTTP_CLASS_PERMANENT : HTTP_CLASS_FINE;
	}
}
