/*
 * stats_names.c
 *		What is counted, and under which name: those of Prometheus, without prefix.
 *
 * Times are seconds in names and in SQL, microseconds in memory.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "stats/stats_shared.h"

#define EVENTS		"Events taken from the inbox, by what became of them."
#define RUNS		"Reads of a source that ended, or began anew in full because the provider had lost the cursor."
#define FETCHES		"Reads of single records, by outcome as in attempts."
#define WEBHOOKS	"Webhook requests that were authentic."
#define REFUSALS	"Webhook requests that were refused, by reason."
#define REQUESTS	"Requests sent to the provider, by what their answer meant."
#define RESPONSES	"Answers of the provider, by their status; none = no answer came."
#define TOKENS		"OAuth access tokens asked for."
#define CHANGES		"Changes of contacts, as in audit_log."
#define DISAGREE	"Fields and groups about which sources said different things when a contact was resolved for events, by the rule that decided."
#define CONFLICTS	"Changes of conflicts: opened (again), resolved by somebody, superseded because there was no question any more."

/* In the order of StatsCounter. */
const StatsName stats_counter_names[STATS_NCOUNTERS] = {
	[SC_EVENTS_APPLIED] = {"events_total", "outcome", "applied", EVENTS},
	[SC_EVENTS_UNCHANGED] = {"events_total", "outcome", "unchanged", EVENTS},
	[SC_EVENTS_LATE] = {"events_total", "outcome", "late", EVENTS},
	[SC_EVENTS_REJECTED] = {"events_total", "outcome", "rejected", EVENTS},
	[SC_REFOLDS] = {"refolds_total", NULL, NULL, "Records folded anew from all their observations, because something came out of order."},
	[SC_PAGES] = {"pages_total", NULL, NULL, "Pages of runs that were stored."},
	[SC_RUNS_SUCCEEDED] = {"runs_total", "outcome", "succeeded", RUNS},
	[SC_RUNS_FAILED] = {"runs_total", "outcome", "failed", RUNS},
	[SC_RUNS_RESTARTED] = {"runs_total", "outcome", "restarted", RUNS},
	[SC_WEBHOOKS_ACCEPTED] = {"webhooks_total", "outcome", "accepted", WEBHOOKS},
	[SC_WEBHOOKS_DUPLICATE] = {"webhooks_total", "outcome", "duplicate", WEBHOOKS},
	[SC_FETCHES_DONE] = {"fetches_total", "outcome", "done", FETCHES},
	[SC_FETCHES_GONE] = {"fetches_total", "outcome", "gone", FETCHES},
	[SC_FETCHES_UNPROVEN] = {"fetches_total", "outcome", "unproven", FETCHES},
	[SC_FETCHES_RETRY] = {"fetches_total", "outcome", "retry", FETCHES},
	[SC_FETCHES_DEAD] = {"fetches_total", "outcome", "dead", FETCHES},
	[SC_WEBHOOKS_NO_SIGNATURE] = {"webhooks_refused_total", "reason", "no signature", REFUSALS},
	[SC_WEBHOOKS_OUTSIDE_WINDOW] = {"webhooks_refused_total", "reason", "outside the window", REFUSALS},
	[SC_WEBHOOKS_NO_SECRET] = {"webhooks_refused_total", "reason", "no secret", REFUSALS},
	[SC_WEBHOOKS_BAD_SIGNATURE] = {"webhooks_refused_total", "reason", "bad signature", REFUSALS},
	[SC_WEBHOOKS_NOT_JSON] = {"webhooks_refused_total", "reason", "not JSON", REFUSALS},
	[SC_WEBHOOKS_TOO_LARGE] = {"webhooks_refused_total", "reason", "too large", REFUSALS},
	[SC_WEBHOOKS_METHOD] = {"webhooks_refused_total", "reason", "method", REFUSALS},
	[SC_WEBHOOKS_UNKNOWN] = {"webhooks_refused_total", "reason", "no such webhook", REFUSALS},
	[SC_REQUESTS_FINE] = {"requests_total", "class", "fine", REQUESTS},
	[SC_REQUESTS_LOST] = {"requests_total", "class", "lost", REQUESTS},
	[SC_REQUESTS_TRANSIENT] = {"requests_total", "class", "transient", REQUESTS},
	[SC_REQUESTS_RATE] = {"requests_total", "class", "rate", REQUESTS},
	[SC_REQUESTS_AUTH] = {"requests_total", "class", "auth", REQUESTS},
	[SC_REQUESTS_PERMANENT] = {"requests_total", "class", "permanent", REQUESTS},
	[SC_RESPONSES_NONE] = {"responses_total", "status", "none", RESPONSES},
	[SC_RESPONSES_1XX] = {"responses_total", "status", "1xx", RESPONSES},
	[SC_RESPONSES_2XX] = {"responses_total", "status", "2xx", RESPONSES},
	[SC_RESPONSES_3XX] = {"responses_total", "status", "3xx", RESPONSES},
	[SC_RESPONSES_4XX] = {"responses_total", "status", "4xx", RESPONSES},
	[SC_RESPONSES_5XX] = {"responses_total", "status", "5xx", RESPONSES},
	[SC_REQUEST_RETRIES] = {"request_retries_total", NULL, NULL, "Requests that are sent again because they failed for now."},
	[SC_RECEIVED_BYTES] = {"received_bytes_total", NULL, NULL, "Bytes of answers as they came over the wire, headers included."},
	[SC_TOKENS_GRANTED] = {"token_requests_total", "outcome", "granted", TOKENS},
	[SC_TOKENS_REFUSED] = {"token_requests_total", "outcome", "refused", TOKENS},
	[SC_CONTACTS_INSERTED] = {"contact_changes_total", "operation", "insert", CHANGES},
	[SC_CONTACTS_UPDATED] = {"contact_changes_total", "operation", "update", CHANGES},
	[SC_CONTACTS_DELETED] = {"contact_changes_total", "operation", "delete", CHANGES},
	[SC_CONTACTS_MERGED] = {"contact_changes_total", "operation", "merge", CHANGES},
	[SC_CONTACTS_RESOLVED] = {"contacts_resolved_total", NULL, NULL, "Contacts that were resolved for events, whether that changed them or not."},
	[SC_DISAGREEMENTS] = {"disagreements_total", "rule", "last_write_wins", DISAGREE},
	{"disagreements_total", "rule", "source_priority", DISAGREE},
	{"disagreements_total", "rule", "manual_review", DISAGREE},
	{"disagreements_total", "rule", "most_frequent", DISAGREE},
	{"disagreements_total", "rule", "verified_first", DISAGREE},
	{"disagreements_total", "rule", "oldest", DISAGREE},
	{"disagreements_total", "rule", "most_complete", DISAGREE},
	{"disagreements_total", "rule", "union", DISAGREE},
	[SC_CONFLICTS_OPENED] = {"conflicts_total", "change", "opened", CONFLICTS},
	[SC_CONFLICTS_RESOLVED] = {"conflicts_total", "change", "resolved", CONFLICTS},
	[SC_CONFLICTS_SUPERSEDED] = {"conflicts_total", "change", "superseded", CONFLICTS},
	[SC_WORKER_STARTS] = {"worker_starts_total", NULL, NULL, "Starts of a worker in this database."},
	[SC_WORKER_WAKEUPS] = {"worker_wakeups_total", NULL, NULL, "How often the worker went to see whether something is due."},
	[SC_WORKER_ERRORS] = {"worker_errors_total", NULL, NULL, "Items of work that the worker could not do, and tries again."},
};

const StatsName stats_histogram_names[STATS_NHISTOGRAMS] = {
	[SH_REQUEST] = {"request_duration_seconds", NULL, NULL, "From sending a request to the end of its answer."},
	[SH_PAGE] = {"page_store_seconds", NULL, NULL, "Reading a page's answer and storing its events."},
	[SH_RUN] = {"run_duration_seconds", NULL, NULL, "Runs that succeeded, from their start to their end."},
	[SH_QUEUE_WAIT] = {"queue_wait_seconds", NULL, NULL, "Events, from their receipt until they were applied."},
	[SH_EVENT_LAG] = {"event_lag_seconds", NULL, NULL, "Events that said something new, from the change at the source until they were applied; of changes since the source is known here."},
};

#define MS(n_)	((n_) * INT64CONST(1000))
#define S(n_)	((n_) * INT64CONST(1000000))

const int64 stats_bounds[STATS_NBUCKETS - 1] = {
	MS(1), MS(2) + 500, MS(5), MS(10), MS(25), MS(50), MS(100), MS(250), MS(500),
	S(1), S(2) + MS(500), S(5), S(10), S(30), S(60), S(120), S(300), S(600),
	S(1800), S(3600), S(21600), S(86400), S(604800)
};

int
stats_bucket(int64 us)
{
	int			i;

	for (i = 0; i < STATS_NBUCKETS - 1 && us > stats_bounds[i]; i++)
		;
	return i;
}

uint64
stats_layout(void)
{
	uint64		h = STATS_NNUMBERS;

	for (int i = 0; i < STATS_NCOUNTERS + STATS_NHISTOGRAMS; i++)
	{
		const StatsName *n = i < STATS_NCOUNTERS ? &stats_counter_names[i] : &stats_histogram_names[i - STATS_NCOUNTERS];

		h = hash_bytes_extended((const unsigned char *) n->name, strlen(n->name), h);
		if (n->value)
			h = hash_bytes_extended((const unsigned char *) n->value, strlen(n->value), h);
	}
	return hash_bytes_extended((const unsigned char *) stats_bounds, sizeof(stats_bounds), h);
}
