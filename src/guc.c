/*
 * guc.c
 *		Every setting of contactsync.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "guc.h"

char	   *guc_tenant;
bool		guc_enabled;
char	   *guc_secret_key_file;
char	   *guc_secret_directory;
char	   *guc_default_region;
int			guc_clock_tolerance;
int			guc_batch_size;
int			guc_http_timeout;
int			guc_http_max_body;
int			guc_http_connections;
int			guc_max_payload;
int			guc_dedup_retention;
int			guc_webhook_tolerance;

void
guc_init(void)
{
	DefineCustomStringVariable("contactsync.tenant",
							   "The tenant whose contacts this session works on.",
							   "Takes effect only for members of the tenant's role.",
							   &guc_tenant, "default",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("contactsync.enabled",
							 "Lets the workers run.",
							 "Switch it off before starting a copy of a production cluster.",
							 &guc_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("contactsync.secret_key_file",
							   "File with the key that encrypts stored secrets.",
							   "32 bytes, raw or as 64 hexadecimal digits; empty = only references to files are accepted as secrets.",
							   &guc_secret_key_file, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("contactsync.secret_directory",
							   "Directory under which files that hold secrets must lie.",
							   NULL,
							   &guc_secret_directory, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("contactsync.default_region",
							   "ISO 3166 region assumed for phone numbers without a country code.",
							   NULL,
							   &guc_default_region, "",
							   PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.clock_tolerance",
							"How far in the future a source's time stamp is believed.",
							"A stamp further ahead counts as the time of its receipt; stored with each observation.",
							&guc_clock_tolerance, 300, 0, 86400,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.batch_size",
							"Events applied in one batch.",
							NULL,
							&guc_batch_size, 500, 1, 10000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_timeout",
							"Time limit of one HTTP request.",
							NULL,
							&guc_http_timeout, 30000, 100, 600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_max_body",
							"Largest HTTP response body accepted.",
							NULL,
							&guc_http_max_body, 16384, 1, 262144,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_connections",
							"HTTP connections that a worker keeps open at most.",
							NULL,
							&guc_http_connections, 50, 1, 200,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.max_payload",
							"Largest payload of one event.",
							NULL,
							&guc_max_payload, 1024, 1, 65536,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.dedup_retention",
							"How long event ids and idempotency keys are remembered.",
							NULL,
							&guc_dedup_retention, 14 * 86400, 3600, 365 * 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.webhook_tolerance",
							"How far a webhook's time stamp may lie from now, in either direction.",
							NULL,
							&guc_webhook_tolerance, 300, 1, 86400,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);

	MarkGUCPrefixReserved("contactsync");
}
