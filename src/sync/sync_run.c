/*
 * sync_run.c
 *		Runs, from the queue to their end.
 *
 * The runs under way are a list in the worker's memory.  A page is stored, with
 * the position after it, in one transaction; the next request goes out after
 * that transaction has committed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "stats/stats.h"
#include "store/guard.h"
#include "sync/sync.h"

static SyncRun *runs = NULL;	/* under way */
static SyncRun *starting = NULL;	/* not prepared yet, or not even committed */

static void
free_run(SyncRun *run)
{
	if (run->sent)
		sync_breaker_dropped(run);
	sync_auth_free(run);
	MemoryContextDelete(run->context);
}

char *
sync_member(Jsonb *json, const char *name)
{
	JsonbValue *v = json && JB_ROOT_IS_OBJECT(json) ? getKeyJsonValueFromContainer(&json->root, name, strlen(name), NULL) : NULL;

	return v && v->type == jbvString ? pnstrdup(v->val.string.val, v->val.string.len) : NULL;
}

static bool
member_true(Jsonb *json, const char *name)
{
	JsonbValue *v = getKeyJsonValueFromContainer(&json->root, name, strlen(name), NULL);

	return v && v->type == jbvBool && v->val.boolean;
}

static Jsonb *
column_jsonb(uint64 row, int col)
{
	bool		isnull;
	Datum		d = store_value(row, col, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(d);
}

static const SyncDriver *
find_driver(const char *name)
{
	static const SyncDriver *const drivers[] = {&sync_rest, &sync_dav};

	for (int i = 0; name && i < lengthof(drivers); i++)
		if (strcmp(drivers[i]->name, name) == 0)
			return drivers[i];
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("the connector's driver does not read")));
}

/* A row of _start_runs as a run; its secrets come later, for that needs SPI. */
static SyncRun *
make_run(const char *tenant, uint64 row)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "contactsync run", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SyncRun    *run = palloc0(sizeof(SyncRun));
	StrView		source = store_text(row, 2);
	StrView		kind = store_text(row, 3);
	Jsonb	   *settings = column_jsonb(row, 8);

	run->context = context;
	run->next = starting;
	starting = run;
	run->tenant = pstrdup(tenant);
	run->id = store_int8(row, 1);
	run->source = pnstrdup(source.ptr, source.len);
	run->full = kind.len == 4;
	run->stamp = store_time(row, 4);
	run->cursor = run->full ? NULL : column_jsonb(row, 6);
	run->progress = column_jsonb(row, 7);
	run->spec = column_jsonb(row, 9);
	run->failures = (int) store_int8(row, 10);
	run->settings = settings;
	run->url = sync_member(settings, "url");
	run->header_context = AllocSetContextCreate(context, "contactsync headers", ALLOCSET_SMALL_SIZES);
	/* the source's own goes before the connector's; false = as fast as it can */
	run->rate = getKeyJsonValueFromContainer(&settings->root, "rate", 4, NULL) ? sync_read_rate(settings, NULL) :
		sync_read_rate(run->spec, "limits");
	run->allow_http = member_true(settings, "allow_http");
	run->allow_private = member_true(settings, "allow_private");
	while (run->url[0] && run->url[strlen(run->url) - 1] == '/')
		run->url[strlen(run->url) - 1] = '\0';
	MemoryContextSwitchTo(old);
	return run;
}

void
sync_start_runs(const char *tenant)
{
	Guard		guard;
	StoreArray	room;
	int			n = 0;
	uint64		found;

	for (SyncRun *run = runs; run; run = run->next)
		n++;
	/* an error aborts the transaction, and the guard with it */
	guard_enter(&guard, tenant);
	guard_require_active();
	SPI_connect();
	store_array_init(&room, INT4OID);
	store_array_add(&room, Int32GetDatum(Max(guc_http_connections - n, 0)), false);
	store_run("SELECT contactsync._queue_polls()", 0, NULL);
	found = store_run("SELECT * FROM contactsync._start_runs(($1)[1])", 1, (StoreArray *[]) {&room});
	for (uint64 row = 0; row < found; row++)
		(void) make_run(tenant, row);
	SPI_finish();

	guard_leave(&guard);
}

SyncRun *
sync_next_started(void)
{
	SyncRun    *run = starting;

	if (run)
	{
		starting = run->next;
		run->next = runs;
		runs = run;
	}
	return run;
}

/* Begin again with everything: the provider does not know where we left off. */
static void
restart_in_full(SyncRun *run)
{
	StoreArray	id;
	MemoryContext old;

	store_array_init(&id, INT8OID);
	store_array_add(&id, Int64GetDatum(run->id), false);
	store_run("SELECT contactsync._restart_run(($1)[1])", 1, (StoreArray *[]) {&id});
	stats_add(stats_of(run->source, strlen(run->source)), SC_RUNS_RESTARTED, 1);
	run->full = true;
	run->cursor = run->progress = NULL;
	run->retries = 0;
	old = MemoryContextSwitchTo(run->context);
	if (!run->driver->begin(run))
		elog(ERROR, "a full run has no use for a cursor");
	MemoryContextSwitchTo(old);
}

void
sync_prepare(SyncRun *run)
{
	Guard		guard;
	MemoryContext old;
	bool		begun;

	guard_enter(&guard, run->tenant);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	sync_breaker_prepare(run);
	old = MemoryContextSwitchTo(run->context);
	run->driver = find_driver(sync_member(run->spec, "driver"));
	sync_auth_prepare(run);
	begun = run->driver->begin(run);
	MemoryContextSwitchTo(old);
	if (!begun)
		restart_in_full(run);
	sync_auth_renew(run);
	SPI_finish();
	guard_leave(&guard);
}

void
sync_forget(void)
{
	while (starting)
	{
		SyncRun    *run = starting;

		starting = run->next;
		free_run(run);
	}
}

static void
send_request(HttpEngine *engine, SyncRun *run)
{
	HttpRequest request = {0};

	sync_auth_fill(run, &request);
	request.allow_http = run->allow_http;
	request.allow_private = run->allow_private;
	request.owner = run;
	run->sent = true;
	if (run->retries == 0)
		run->first_sent = GetCurrentTimestamp();
	http_submit(engine, &request);
}

void
sync_proceed(HttpEngine *engine)
{
	for (SyncRun **p = &runs; *p;)
	{
		SyncRun    *run = *p;

		if (run->request == NULL && run->fault_code == NULL)
		{
			*p = run->next;
			http_cancel(engine, run);
			free_run(run);
			continue;
		}
		if (run->request && !run->sent && (!sync_auth_due(run) || sync_auth_may_ask(run)) && sync_may_send(run))
			send_request(engine, run);
		p = &run->next;
	}
}

TimestampTz
sync_next_send(void)
{
	TimestampTz next = DT_NOEND;

	for (SyncRun *run = runs; run; run = run->next)
		if (run->request && !run->sent)
			next = Min(next, run->not_before);
	return next;
}

bool
sync_idle(void)
{
	return runs == NULL && starting == NULL;
}

bool
sync_is_reading(const char *tenant, const char *source)
{
	for (SyncRun *run = runs; run; run = run->next)
		if (strcmp(run->source, source) == 0 && strcmp(run->tenant, tenant) == 0)
			return true;
	return false;
}

void
sync_check_answered(HttpExchange *x)
{
	static const int codes[] = {
		[HTTP_REFUSED] = ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION,
		[HTTP_TOO_LARGE] = ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		[HTTP_FAILED] = ERRCODE_CONNECTION_FAILURE,
	};

	if (x->fault != HTTP_ANSWERED)
		ereport(ERROR, (errcode(codes[x->fault]), errmsg("%s", x->error)));
}

SyncClass
sync_classify(HttpExchange *x)
{
	static const SyncClass classes[] = {
		[HTTP_CLASS_FINE] = SYNC_FINE,
		[HTTP_CLASS_TRANSIENT] = SYNC_TRANSIENT,
		[HTTP_CLASS_RATE] = SYNC_RATE,
		[HTTP_CLASS_AUTH] = SYNC_AUTH,
		[HTTP_CLASS_PERMANENT] = SYNC_PERMANENT,
		[HTTP_CLASS_UNKNOWN] = SYNC_TRANSIENT,	/* a run only reads */
	};

	return classes[http_classify(x)];
}

void
sync_check_status(HttpExchange *x, int expected)
{
	if (x->status == expected)
		return;
	if (x->status == 401 || x->status == 403)
		ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
						errmsg("the provider refused the credentials with status %d", x->status)));
	if (x->status >= 300 && x->status < 400)
		ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
						errmsg("the provider redirects, which is not followed: status %d", x->status)));
	ereport(ERROR, (errcode(sync_classify(x) == SYNC_RATE || x->status >= 500 || sync_classify(x) == SYNC_TRANSIENT ?
							ERRCODE_CONNECTION_FAILURE : ERRCODE_PROTOCOL_VIOLATION),
					errmsg("the provider answered with status %d instead of %d", x->status, expected)));
}

void
sync_bad_answer(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("the provider's answer %s", what)));
}

Datum
sync_object(int n, const char *const *names, const char *const *values)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	v;

		if (values[i] == NULL)
			continue;
		v.type = jbvString;
		v.val.string.val = (char *) names[i];
		v.val.string.len = strlen(names[i]);
		(void) pushJsonbValue(&state, WJB_KEY, &v);
		v.val.string.val = (char *) values[i];
		v.val.string.len = strlen(values[i]);
		(void) pushJsonbValue(&state, WJB_VALUE, &v);
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

void
sync_keep(SyncRun *run, char **field, const char *value)
{
	char	   *kept = value ? MemoryContextStrdup(run->context, value) : NULL;

	if (*field)
		pfree(*field);
	*field = kept;
}

/* The columns of a page that a row may leave NULL. */
static void
page_columns(SyncPage *page, StoreArray **columns)
{
	columns[0] = &page->versions;
	columns[1] = &page->created;
	columns[2] = &page->modified;
	columns[3] = &page->payloads;
	columns[4] = &page->etags;
	columns[5] = &page->faults;
}

void
sync_add_row(SyncPage *page, const char *id, const char *kind)
{
	StoreArray *columns[6];

	store_array_add(&page->ids, CStringGetTextDatum(id), false);
	store_array_add(&page->kinds, CStringGetTextDatum(kind), false);
	page_columns(page, columns);
	for (int i = 0; i < lengthof(columns); i++)
		store_array_add(columns[i], (Datum) 0, true);
}

void
sync_page_init(SyncPage *page)
{
	static const Oid types[6] = {TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID, TEXTOID, TEXTOID};
	StoreArray *columns[6];

	page->part = NULL;
	store_array_init(&page->ids, TEXTOID);
	store_array_init(&page->kinds, TEXTOID);
	page_columns(page, columns);
	for (int i = 0; i < lengthof(columns); i++)
		store_array_init(columns[i], types[i]);
}

void
sync_parameters(SyncRun *run, SyncVars *vars)
{
	Jsonb	   *of[] = {run->spec, run->settings};
	Jsonb	  **to[] = {&vars->parameters, &vars->own_parameters};

	for (int i = 0; i < lengthof(of); i++)
	{
		JsonbValue *v = getKeyJsonValueFromContainer(&of[i]->root, "parameters", 10, NULL);

		*to[i] = v && v->type == jbvBinary ? JsonbValueToJsonb(v) : NULL;
	}
}

void
sync_add_header(SyncRun *run, const char *header)
{
	if (run->nheaders == 0)
		MemoryContextReset(run->header_context);
	if (run->nheaders == SYNC_MAX_HEADERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the connector's request has too many headers")));
	run->headers[run->nheaders++] = MemoryContextStrdup(run->header_context, header);
}

/* Store what an answer brought, with the position after it. */
static void
take_page(SyncRun *run, HttpExchange *x)
{
	SyncPage	page;
	StoreArray	id;
	StoreArray	json;
	StoreArray	part;
	Datum		cursor;
	TimestampTz begun = GetCurrentTimestamp();

	sync_page_init(&page);
	run->retries = 0;
	if (!run->driver->read(run, x, &page))
	{
		restart_in_full(run);
		return;
	}
	store_array_init(&id, INT8OID);
	store_array_add(&id, Int64GetDatum(run->id), false);
	store_array_init(&json, JSONBOID);
	store_array_add(&json, run->driver->progress(run), false);
	store_array_init(&part, TEXTOID);
	store_array_add(&part, page.part ? CStringGetTextDatum(page.part) : (Datum) 0, page.part == NULL);
	store_run("SELECT contactsync._store_page(($1)[1], $2, $3, $4, $5, $6, $7, $8, $9, ($10)[1], ($11)[1])", 11,
			  (StoreArray *[]) {&id, &page.ids, &page.kinds, &page.versions, &page.created, &page.modified,
			  &page.payloads, &page.etags, &page.faults, &json, &part});
	if (run->request == NULL)
	{
		cursor = run->driver->cursor(run);
		json.values[0] = cursor;
		json.nulls[0] = cursor == (Datum) 0;
		store_run("SELECT contactsync._finish_run(($1)[1], ($2)[1])", 2, (StoreArray *[]) {&id, &json});
	}
	sync_count_page(run, &page, begun);
}

void
sync_answer(SyncRun *run, HttpExchange *x)
{
	Guard		guard;
	bool		for_token = sync_auth_due(run);
	SyncClass	class;

	sync_breaker_note(run, x);
	guard_enter(&guard, run->tenant);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	run->sent = false;
	class = for_token ? sync_auth_classify(run, x) : run->driver->classify(run, x);
	sync_count_answer(run, x, class, for_token);
	if ((class == SYNC_TRANSIENT || class == SYNC_RATE) && sync_try_later(run, x, class == SYNC_RATE))
		 /* the same request again */ ;
	else if (class == SYNC_RATE)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the provider's limit of requests is reached: status %d", x->status)));
	else if (for_token)
		sync_auth_answer(run, x);
	else if (class == SYNC_LOST)
		restart_in_full(run);
	else if (class != SYNC_AUTH || !sync_auth_refused(run))
	{
		if (class == SYNC_FINE)
			sync_auth_accepted(run);
		take_page(run, x);
		sync_note_limits(run, x);
	}
	if (run->request && !sync_auth_due(run))
		sync_auth_renew(run);
	sync_breaker_store(run, false);
	SPI_finish();
	guard_leave(&guard);
}

void
sync_give_up(SyncRun *run, const char *code, const char *reason, int retry_after)
{
	sync_keep(run, &run->request, NULL);
	sync_keep(run, &run->fault_code, code);
	sync_keep(run, &run->fault_reason, reason);
	run->retry_after = retry_after;
}

void
sync_failed(SyncRun *run)
{
	sync_keep(run, &run->fault_code, NULL);
}

SyncRun *
sync_next_failure(SyncRun *run)
{
	for (run = run ? run->next : runs; run && run->fault_code == NULL; run = run->next)
		;
	return run;
}

void
sync_fail(SyncRun *run)
{
	Guard		guard;
	StoreArray	id;
	StoreArray	texts;
	StoreArray	seconds;

	guard_enter(&guard, run->tenant);
	SPI_connect();
	sync_breaker_store(run, true);
	store_array_init(&id, INT8OID);
	store_array_add(&id, Int64GetDatum(run->id), false);
	store_array_init(&texts, TEXTOID);
	store_array_add(&texts, CStringGetTextDatum(run->fault_code), false);
	store_array_add(&texts, CStringGetTextDatum(run->fault_reason), false);
	store_array_init(&seconds, INT4OID);
	store_array_add(&seconds, Int32GetDatum(run->retry_after), run->retry_after < 0);
	store_run("SELECT contactsync._fail_run(($1)[1], ($2)[1], ($2)[2], ($3)[1])", 3,
			  (StoreArray *[]) {&id, &texts, &seconds});
	stats_add(stats_of(run->source, strlen(run->source)), SC_RUNS_FAILED, 1);
	SPI_finish();
	guard_leave(&guard);
}
