/*
 * guc.h
 *		Every setting of contactsync, each with the variable that holds it.
 */
#ifndef CONTACTSYNC_GUC_H
#define CONTACTSYNC_GUC_H

extern void guc_init(void);

extern char *guc_tenant;		/* contactsync.tenant */
extern int	guc_clock_tolerance;	/* contactsync.clock_tolerance, s */
extern int	guc_batch_size;		/* contactsync.batch_size, events */
extern int	guc_max_payload;	/* contactsync.max_payload, kB */
extern char *guc_secret_key_file;	/* contactsync.secret_key_file */
extern char *guc_secret_directory;	/* contactsync.secret_directory */
extern int	guc_webhook_tolerance;	/* contactsync.webhook_tolerance, s */
extern int	guc_max_payload;
extern bool guc_enabled;
extern int	guc_http_connections;
extern int	guc_http_host_connections;	/* contactsync.http_host_connections */
extern int	guc_http_timeout;
extern int	guc_http_stall_timeout; /* contactsync.http_stall_timeout, in s */
extern char *guc_http_ca_file;	/* contactsync.http_ca_file */
extern int	guc_breaker_failures;	/* contactsync.breaker_failures */
extern int	guc_breaker_pause;	/* contactsync.breaker_pause, in s */
extern int	guc_http_retries;	/* contactsync.http_retries */
extern int	guc_http_max_body;
extern int	guc_http_memory;	/* contactsync.http_memory, in kB */
extern char *guc_listen;
extern int	guc_listen_connections;
extern int	guc_inbox_limit;
extern int	guc_dedup_retention;
extern int	guc_run_retention;
extern int	guc_max_counted_sources;	/* contactsync.max_counted_sources */
extern int	guc_counter_save_interval;	/* contactsync.counter_save_interval, s */
extern int	guc_max_attempts;
extern int	guc_attempt_retention;
extern bool guc_apply;

#endif							/* CONTACTSYNC_GUC_H */
