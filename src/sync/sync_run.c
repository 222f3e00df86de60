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
#include "store/guard.h"
#include "store/secret.h"
#include "sync/sync.h"

PG_FUNCTION_INFO_V1(sync_map_sql);

static SyncRun *runs = NULL;	/* under way */
static SyncRun *starting = NULL;	/* their start is not committed yet */

static void
free_run(SyncRun *run)
{
	if (run->password)
		explicit_bzero(run->password, strlen(run->password));
	if (run->token)
		explicit_bzero(run->token, strlen(run->token));
	MemoryContextDelete(run->context);
}

static char *
member_text(Jsonb *json, const char *name)
{
	JsonbValue *v = json ? getKeyJsonValueFromContainer(&json->root, name, strlen(name), NULL) : NULL;

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

/* A row of _start_runs as a run; its secrets come later, for that needs SPI. */
static SyncRun *
make_run(const char *tenant, uint64 row)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "contactsync run", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SyncRun    *run = palloc0(sizeof(SyncRun));
	StrView		source = store_text(row, 2);
	Jsonb	   *started_from = column_jsonb(row, 6);
	Jsonb	   *progress = column_jsonb(row, 7);
	Jsonb	   *settings = column_jsonb(row, 8);

	run->context = context;
	run->tenant = pstrdup(tenant);
	run->id = store_int8(row, 1);
	run->source = pnstrdup(source.ptr, source.len);
	run->spec = column_jsonb(row, 9);
	run->url = member_text(settings, "url");
	run->allow_http = member_true(settings, "allow_http");
	run->allow_private = member_true(settings, "allow_private");
	run->since = member_text(started_from, "since");
	run->after = member_text(progress, "after");
	run->newest = member_text(progress, "newest");
	if (run->newest == NULL)
		run->newest = run->since;
	while (run->url[0] && run->url[strlen(run->url) - 1] == '/')
		run->url[strlen(run->url) - 1] = '\0';
	MemoryContextSwitchTo(old);
	run->next = starting;
	starting = run;
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
	if (n >= guc_http_connections)
		return;

	/* an error aborts the transaction, and the guard with it */
	guard_enter(&guard, tenant);
	guard_require_active();
	SPI_connect();
	store_array_init(&room, INT4OID);
	store_array_add(&room, Int32GetDatum(guc_http_connections - n), false);
	store_run("SELECT contactsync._queue_polls()", 0, NULL);
	found = store_run("SELECT * FROM contactsync._start_runs(($1)[1])", 1, (StoreArray *[]) {&room});
	for (uint64 row = 0; row < found; row++)
		(void) make_run(tenant, row);
	SPI_finish();

	for (SyncRun *run = starting; run; run = run->next)
	{
		MemoryContext old = MemoryContextSwitchTo(run->context);

		run->username = secret_get(run->source, "username");
		run->password = secret_get(run->source, "password");
		run->token = secret_get(run->source, "token");
		sync_rest_begin(run);
		MemoryContextSwitchTo(old);
	}
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
	static const char *const headers[] = {"Accept: application/json"};
	HttpRequest request = {0};

	request.method = "GET";
	request.url = run->request;
	request.nheaders = lengthof(headers);
	request.headers = headers;
	request.username = run->username;
	request.password = run->password;
	request.token = run->token;
	request.allow_http = run->allow_http;
	request.allow_private = run->allow_private;
	request.owner = run;
	run->sent = true;
	http_submit(engine, &request);
}

void
sync_proceed(HttpEngine *engine)
{
	while (starting)
	{
		SyncRun    *run = starting;

		starting = run->next;
		run->next = runs;
		runs = run;
	}
	for (SyncRun **p = &runs; *p;)
	{
		SyncRun    *run = *p;

		if (run->request == NULL)
		{
			*p = run->next;
			free_run(run);
			continue;
		}
		if (!run->sent)
			send_request(engine, run);
		p = &run->next;
	}
}

/* Throws unless the answer is one that a driver can read. */
static void
check_answer(HttpExchange *x)
{
	if (x->fault == HTTP_REFUSED)
		ereport(ERROR, (errcode(ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION),
						errmsg("%s", x->error)));
	if (x->fault == HTTP_TOO_LARGE)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("%s", x->error)));
	if (x->fault != HTTP_ANSWERED)
		ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE), errmsg("%s", x->error)));
	if (x->status == 401 || x->status == 403)
		ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
						errmsg("the provider refused the credentials with status %d", x->status)));
	if (x->status >= 300 && x->status < 400)
		ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
						errmsg("the provider redirects, which is not followed: status %d", x->status)));
	if (x->status != 200)
		ereport(ERROR, (errcode(x->status == 429 || x->status >= 500 ? ERRCODE_CONNECTION_FAILURE : ERRCODE_PROTOCOL_VIOLATION),
						errmsg("the provider answered with status %d", x->status)));
}

static Datum
progress_json(const char *name, const char *value, const char *name2, const char *value2)
{
	JsonbParseState *state = NULL;
	const char *pairs[2][2] = {{name, value}, {name2, value2}};

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < 2; i++)
	{
		JsonbValue	v;

		if (pairs[i][1] == NULL)
			continue;
		v.type = jbvString;
		v.val.string.val = (char *) pairs[i][0];
		v.val.string.len = strlen(pairs[i][0]);
		(void) pushJsonbValue(&state, WJB_KEY, &v);
		v.val.string.val = (char *) pairs[i][1];
		v.val.string.len = strlen(pairs[i][1]);
		(void) pushJsonbValue(&state, WJB_VALUE, &v);
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

void
sync_answer(SyncRun *run, HttpExchange *x)
{
	Guard		guard;
	SyncPage	page;
	StoreArray	id;
	StoreArray	json;

	check_answer(x);
	guard_enter(&guard, run->tenant);
	SPI_connect();
	store_array_init(&page.ids, TEXTOID);
	store_array_init(&page.kinds, TEXTOID);
	store_array_init(&page.versions, TIMESTAMPTZOID);
	store_array_init(&page.created, TIMESTAMPTZOID);
	store_array_init(&page.payloads, JSONBOID);
	sync_rest_read(run, x, &page);
	run->sent = false;

	store_array_init(&id, INT8OID);
	store_array_add(&id, Int64GetDatum(run->id), false);
	store_array_init(&json, JSONBOID);
	store_array_add(&json, progress_json("after", run->after, "newest", run->newest), false);
	store_run("SELECT contactsync._store_page(($1)[1], $2, $3, $4, $5, $6, ($7)[1])", 7,
			  (StoreArray *[]) {&id, &page.ids, &page.kinds, &page.versions, &page.created, &page.payloads, &json});
	if (run->request == NULL)
	{
		json.values[0] = progress_json("since", run->newest, "", NULL);
		store_run("SELECT contactsync._finish_run(($1)[1], ($2)[1])", 2, (StoreArray *[]) {&id, &json});
	}
	SPI_finish();
	guard_leave(&guard);
}

void
sync_fail(SyncRun *run, const char *code, const char *reason, int retry_after)
{
	Guard		guard;
	StoreArray	id;
	StoreArray	texts;
	StoreArray	seconds;

	/* ends it here even if the row cannot be written: a restart will resume it */
	run->request = NULL;
	guard_enter(&guard, run->tenant);
	SPI_connect();
	store_array_init(&id, INT8OID);
	store_array_add(&id, Int64GetDatum(run->id), false);
	store_array_init(&texts, TEXTOID);
	store_array_add(&texts, CStringGetTextDatum(code), false);
	store_array_add(&texts, CStringGetTextDatum(reason), false);
	store_array_init(&seconds, INT4OID);
	store_array_add(&seconds, Int32GetDatum(retry_after), retry_after < 0);
	store_run("SELECT contactsync._fail_run(($1)[1], ($2)[1], ($2)[2], ($3)[1])", 3,
			  (StoreArray *[]) {&id, &texts, &seconds});
	SPI_finish();
	guard_leave(&guard);
}

/*
 * _map(connector text, payload jsonb) -> contact
 */
Datum
sync_map_sql(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	StoreArray	name;
	Jsonb	   *payload;
	Contact    *result;
	Contact    *copy;
	uint64		n;
	bool		isnull;
	Datum		map;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	payload = PG_GETARG_JSONB_P(1);
	SPI_connect();
	store_array_init(&name, TEXTOID);
	store_array_add(&name, PG_GETARG_DATUM(0), false);
	n = store_run("SELECT c.spec -> 'map' FROM (SELECT contactsync._connector(($1)[1]) AS spec) c WHERE c.spec IS NOT NULL",
				  1, (StoreArray *[]) {&name});
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connector \"%s\" does not exist", text_to_cstring(PG_GETARG_TEXT_PP(0)))));
	map = store_value(0, 1, &isnull);
	if (!isnull)
		payload = contact_map(DatumGetJsonbP(map), payload, false);
	result = contact_from_jsonb(payload, NULL);
	copy = MemoryContextAlloc(context, VARSIZE(result));
	memcpy(copy, result, VARSIZE(result));
	SPI_finish();
	PG_RETURN_CONTACT_P(copy);
}
