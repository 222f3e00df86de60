/*
 * server.c
 *		What the HTTP engine uses of the server, for use outside of it: settings,
 *		errors that end the program, an allowance for descriptors.
 *
 * What libpgport has (comparison of strings) is taken from there.
 */
#include "postgres.h"

#include <stdarg.h>

#include "storage/fd.h"

#include "guc.h"

int			guc_http_connections = 50;
int			guc_http_host_connections = 50;
int			guc_http_timeout = 60;
int			guc_http_stall_timeout = 30;
int			guc_http_max_body = 32768;
int			guc_http_memory = 65536;
char	   *guc_http_ca_file = NULL;

int			max_safe_fds = 3000;

bool
AcquireExternalFD(void)
{
	return true;
}

void
ReleaseExternalFD(void)
{
}

void
ExceptionalCondition(const char *condition, const char *type, const char *file, int line)
{
	fprintf(stderr, "assertion failed: %s, at %s:%d\n", condition, file, line);
	abort();
}

static int	level;

bool
errstart(int elevel, const char *domain)
{
	level = elevel;
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	if (level >= ERROR)
		abort();
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return 0;
}

int
errhint(const char *fmt,...)
{
	return 0;
}
