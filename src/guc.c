/*
 * guc.c
 *		Every setting of contactsync.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"

#include "guc.h"

char	   *guc_tenant;
int			guc_clock_tolerance;
int			guc_batch_size;
int			guc_max_payload;
char	   *guc_secret_key_file;
char	   *guc_secret_directory;
int			guc_webhook_tolerance;
bool		guc_enabled;
int			guc_http_connections;
int			guc_http_host_connections;
int			guc_http_timeout;
int			guc_http_stall_timeout;
int			guc_http_retries;
int			guc_breaker_failures;
int			guc_breaker_pause;
char	   *guc_http_ca_file;
int			guc_http_max_body;
int			guc_http_memory;
char	   *guc_listen;
int			guc_listen_connections;
int			guc_inbox_limit;
int			guc_dedup_retention;
int			guc_run_retention;
int			guc_max_counted_sources = 1000;
int			guc_counter_save_interval;
int			guc_max_attempts;
int			guc_attempt_retention;
bool		guc_apply;

void
guc_init(void)
{
	DefineCustomStringVariable("contactsync.tenant",
							   "The tenant whose contacts this session works on.",
							   "Takes effect only for members of the tenant's role.",
							   &guc_tenant, "default",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.clock_tolerance",
							"How far in the future a source's time stamp is believed.",
							"A stamp further ahead counts as the time of its receipt; stored with each observation.",
							&guc_clock_tolerance, 300, 0, 86400,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.batch_size",
							"Most events applied in one batch.",
							"A batch ends sooner where its payloads are large.",
							&guc_batch_size, 500, 1, 10000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.max_payload",
							"Largest payload of one event.",
							NULL,
							&guc_max_payload, 1024, 1, 65536,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomStringVariable("contactsync.secret_key_file",
							   "File with the key that credentials are sealed with.",
							   "It holds 64 hex digits; without it, only references to files are taken.",
							   &guc_secret_key_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("contactsync.secret_directory",
							   "Directory below which credentials may be read from files.",
							   NULL,
							   &guc_secret_directory, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.webhook_tolerance",
							"How far a webhook's signed time stamp may be from now, in either direction.",
							NULL,
							&guc_webhook_tolerance, 300, 0, 86400,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomBoolVariable("contactsync.enabled",
							 "Whether background workers act.",
							 "Turn it off in a clone of a server that must not ask its original's providers.",
							 &guc_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_connections",
							"Most connections that a worker holds at a time.",
							NULL,
							&guc_http_connections, 50, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_host_connections",
							"Most connections that a worker holds to one server at a time.",
							"Further requests wait for their turn; with HTTP/2, up to 100 share a connection.",
							&guc_http_host_connections, 20, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_timeout",
							"Longest time of one HTTP request.",
							NULL,
							&guc_http_timeout, 60, 1, 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_stall_timeout",
							"Longest time that an HTTP server may send next to nothing.",
							"That is, less than 10 bytes a second; 0 = as long as contactsync.http_timeout.",
							&guc_http_stall_timeout, 30, 0, 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_retries",
							"How often a request that failed for now is sent again before its run fails.",
							"After a pause that grows, at random, or as long as the provider asks for.",
							&guc_http_retries, 4, 0, 20,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.breaker_failures",
							"After how many failed requests in a row a source is asked no more for a while.",
							"Those are requests without an answer, or with one of 5xx; 0 = it always is.",
							&guc_breaker_failures, 5, 0, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.breaker_pause",
							"How long a source that fails is not asked.",
							"That doubles each time, up to five minutes, less a random part.",
							&guc_breaker_pause, 1, 1, 300,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("contactsync.http_ca_file",
							   "File with the certificates of the authorities that servers are trusted by.",
							   "In PEM; empty = those of the system.",
							   &guc_http_ca_file, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_max_body",
							"Largest body of an HTTP response.",
							NULL,
							&guc_http_max_body, 32768, 1, 1048576,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.http_memory",
							"Memory for the bodies of all HTTP responses that are under way.",
							"Beyond it, requests wait and connections are not read.",
							&guc_http_memory, 65536, 64, 4194304,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	/* a database may have its own: ALTER DATABASE ... SET */
	DefineCustomStringVariable("contactsync.listen",
							   "Address at which webhooks are taken, host:port or [host]:port.",
							   "Numeric; empty = none. Put a proxy that speaks TLS before it.",
							   &guc_listen, "",
							   PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.listen_connections",
							"Most connections that the listener serves at a time.",
							"Those beyond are closed at once.",
							&guc_listen_connections, 256, 1, 10000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.inbox_limit",
							"Events of a tenant that may wait before the listener takes no more.",
							"It answers 503 until there is room again; 0 = no limit.",
							&guc_inbox_limit, 1000000, 0, 1000000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.dedup_retention",
							"Days for which event ids and idempotency keys are remembered.",
							"A repetition that comes later is taken for a new event; 0 = for ever.",
							&guc_dedup_retention, 14, 0, 36500,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.run_retention",
							"Days for which finished runs are kept.",
							"The newest of each source stays; 0 = for ever.",
							&guc_run_retention, 90, 0, 36500,
							PGC_SUSET, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("contactsync.max_counted_sources",
								"Most sources, of all tenants and databases, that are counted one by one.",
								"Each takes 2 kB of shared memory; what comes beyond it is counted together.",
								&guc_max_counted_sources, 1000, 10, 1000000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.counter_save_interval",
							"How often counters are written to disk, if there is something new.",
							"A crash loses what was counted since.",
							&guc_counter_save_interval, 60, 1, 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.max_attempts",
							"How often a job of a queue is tried before it is given up.",
							"After a random part of a pause that doubles, from 2 s to an hour, or as long as the provider asks for.",
							&guc_max_attempts, 15, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("contactsync.attempt_retention",
							"Days for which attempts at jobs are kept.",
							"0 = for ever.",
							&guc_attempt_retention, 7, 0, 36500,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("contactsync.apply",
							 "Whether the worker applies events.",
							 "Off: it only reads sources, and process() or drain() is called by others.",
							 &guc_apply, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("contactsync");
}
