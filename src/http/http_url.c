/*
 * http_url.c
 *		URLs, by libcurl's own parser, so that what is compared here is what is
 *		dialled there.
 */
#include "postgres.h"

#include <curl/curl.h>

#include "lib/stringinfo.h"

#include "http/http.h"

/* Copy what libcurl returned into our memory. */
static char *
take(char *s)
{
	size_t		len = strlen(s) + 1;
	char	   *result = MemoryContextAllocExtended(CurrentMemoryContext, len, MCXT_ALLOC_NO_OOM);

	if (result)
		memcpy(result, s, len);
	curl_free(s);
	if (result == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return result;
}

char *
http_url_resolve(const char *base, const char *reference)
{
	CURLU	   *u = curl_url();
	char	   *result = NULL;

	if (u == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	if (curl_url_set(u, CURLUPART_URL, base, 0) != CURLUE_OK ||
		curl_url_set(u, CURLUPART_URL, reference, 0) != CURLUE_OK ||
		curl_url_get(u, CURLUPART_URL, &result, 0) != CURLUE_OK)
		result = NULL;
	curl_url_cleanup(u);
	return result ? take(result) : NULL;
}

bool
http_url_same_origin(const char *a, const char *b)
{
	static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
	CURLU	   *ua = curl_url();
	CURLU	   *ub = curl_url();
	bool		same = ua && ub &&
		curl_url_set(ua, CURLUPART_URL, a, 0) == CURLUE_OK &&
		curl_url_set(ub, CURLUPART_URL, b, 0) == CURLUE_OK;

	for (int i = 0; i < lengthof(parts) && same; i++)
	{
		char	   *x = NULL;
		char	   *y = NULL;

		same = curl_url_get(ua, parts[i], &x, CURLU_DEFAULT_PORT) == CURLUE_OK &&
			curl_url_get(ub, parts[i], &y, CURLU_DEFAULT_PORT) == CURLUE_OK &&
			pg_strcasecmp(x, y) == 0;
		curl_free(x);
		curl_free(y);
	}
	curl_url_cleanup(ua);
	curl_url_cleanup(ub);
	return same;
}

/* A part of a URL; NULL if there is none. */
static char *
url_part(const char *url, CURLUPart part, unsigned int flags)
{
	CURLU	   *u = curl_url();
	char	   *result = NULL;

	if (u == NULL || curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
		curl_url_get(u, part, &result, flags) != CURLUE_OK)
		result = NULL;
	curl_url_cleanup(u);
	return result ? take(result) : NULL;
}

char *
http_url_host(const char *url)
{
	char	   *host = url_part(url, CURLUPART_HOST, 0);
	char	   *port = url_part(url, CURLUPART_PORT, CURLU_NO_DEFAULT_PORT);

	return host && port ? psprintf("%s:%s", host, port) : host;
}

bool
http_url_on_host(const char *url, const char *pattern)
{
	char	   *host = http_url_host(url);
	size_t		n;
	size_t		len;

	if (host == NULL)
		return false;
	if (pattern[0] != '*')
		return pg_strcasecmp(host, pattern) == 0;
	/* at least one character before the dot that the rest begins with */
	n = strlen(pattern + 1);
	len = strlen(host);
	return len > n && pg_strcasecmp(host + len - n, pattern + 1) == 0;
}

char *
http_url_path(const char *url, bool decoded)
{
	return url_part(url, CURLUPART_PATH, decoded ? CURLU_URLDECODE : 0);
}

char *
http_url_escape(const char *text)
{
	char	   *escaped = curl_easy_escape(NULL, text, strlen(text));

	if (escaped == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return take(escaped);
}

/* The URL with one more parameter in its query. */
char *
http_url_add(const char *url, const char *name, const char *value)
{
	return psprintf("%s%c%s=%s", url, strchr(url, '?') ? '&' : '?',
					http_url_escape(name), http_url_escape(value));
}

/* Past a quoted string, or NULL if it does not end. */
static const char *
skip_quoted(const char *p)
{
	for (p++; *p && *p != '"'; p++)
		if (*p == '\\' && p[1])
			p++;
	return *p ? p + 1 : NULL;
}

/* Is a link relation among those of a parameter's value? */
static bool
has_relation(const char *value, size_t len, const char *relation)
{
	size_t		n = strlen(relation);

	for (size_t i = 0; i + n <= len; i++)
		if ((i == 0 || value[i - 1] == ' ') && (i + n == len || value[i + n] == ' ') &&
			pg_strncasecmp(value + i, relation, n) == 0)
			return true;
	return false;
}

/*
 * <reference>; name=value; name="value", <reference>; ... (RFC 8288): a comma may
 * stand in a reference and in quotes.
 */
char *
http_next_link(const char *header)
{
	const char *p = header;

	while (p && (p = strchr(p, '<')) != NULL)
	{
		const char *reference = p + 1;
		const char *end = strchr(reference, '>');
		bool		next = false;

		if (end == NULL)
			return NULL;
		for (p = end + 1; p && *p && *p != ',';)
		{
			const char *name;
			size_t		name_len;
			const char *value;

			p += strspn(p, " \t;");
			name = p;
			name_len = strcspn(p, " \t=;,");
			p += name_len;
			p += strspn(p, " \t");
			if (*p != '=')
				continue;
			p++;
			p += strspn(p, " \t");
			value = p;
			p = *p == '"' ? skip_quoted(p) : p + strcspn(p, " \t;,");
			if (p == NULL)
				return NULL;
			if (name_len == 3 && pg_strncasecmp(name, "rel", 3) == 0)
				next |= *value == '"' ? has_relation(value + 1, p - value - 2, "next") : has_relation(value, p - value, "next");
		}
		if (next)
			return pnstrdup(reference, end - reference);
	}
	return NULL;
}
