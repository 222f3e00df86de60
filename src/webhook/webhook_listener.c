/*
 * webhook_listener.c
 *		A background worker that takes webhooks for one database.
 *
 * What has arrived while the last transaction was being committed goes into the
 * next one, and is answered after its commit: so a busy listener commits in
 * groups, and an idle one at once.  An error in a group sends each of its
 * requests through a transaction of its own.
 *
 * POST /webhooks/SOURCE			a source of the tenant default
 * POST /webhooks/TENANT/SOURCE		of another one
 * GET /health						200, or 503 where no webhook would be taken
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "guc.h"
#include "store/guard.h"
#include "webhook/webhook_server.h"
#include "worker/worker.h"

#define MAX_BODY			(256 * 1024)
#define REQUEST_SECONDS		15
#define GROUP_MAX			500
#define BUSY_CHECK_MS		1000
#define PATH_PREFIX			"/webhooks/"
#define DEFAULT_TENANT		"default"
#define RECEIVE				"SELECT r.status, r.answer FROM contactsync._receive($1, $2, $3, 'POST', $4) r"

extern PGDLLEXPORT void webhook_listener_main(Datum arg);

/* An answer, until the transaction that it belongs to has committed. */
typedef struct Answer
{
	ServerRequest *request;
	int			status;
	char	   *text;
} Answer;

static WebhookServer *server = NULL;

/* ---- a request as arguments ---- */

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = pg_tolower((unsigned char) c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A segment of a path, without its escapes; NULL if that is no text, or none. */
static char *
path_segment(const char *s, size_t len)
{
	char	   *result = palloc(len + 1);
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
	{
		if (s[i] != '%')
			result[n++] = s[i];
		else if (i + 2 < len && hex_value(s[i + 1]) >= 0 && hex_value(s[i + 2]) >= 0)
		{
			result[n++] = (char) (hex_value(s[i + 1]) << 4 | hex_value(s[i + 2]));
			i += 2;
		}
		else
			return NULL;
	}
	result[n] = '\0';
	if (n == 0 || strlen(result) != n || !pg_verifymbstr(result, n, true))
		return NULL;
	return result;
}

/* Whose webhook it is; false if the path does not say. */
static bool
read_path(const char *target, char **tenant, char **source)
{
	const char *path = target + strlen(PATH_PREFIX);
	size_t		len = strcspn(path, "?#");
	const char *slash = memchr(path, '/', len);

	*tenant = slash ? path_segment(path, slash - path) : pstrdup(DEFAULT_TENANT);
	*source = slash ? path_segment(slash + 1, len - (slash + 1 - path)) : path_segment(path, len);
	return *tenant && *source && (slash == NULL || memchr(slash + 1, '/', len - (slash + 1 - path)) == NULL);
}

/* {name: value, ...}: one that came more than once is a list, as HTTP has it. */
static Datum
headers_json(ServerRequest *r)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	for (int i = 0; i < r->nheaders; i++)
	{
		StringInfoData value;
		bool		seen = false;

		for (int j = 0; j < i && !seen; j++)
			seen = pg_strcasecmp(r->headers[i].name, r->headers[j].name) == 0;
		if (seen)
			continue;
		initStringInfo(&value);
		appendStringInfoString(&value, r->headers[i].value);
		for (int j = i + 1; j < r->nheaders; j++)
			if (pg_strcasecmp(r->headers[i].name, r->headers[j].name) == 0)
				appendStringInfo(&value, ", %s", r->headers[j].value);
		/* what is no text here cannot be one that a provider signs with */
		if (!pg_verifymbstr(r->headers[i].name, strlen(r->headers[i].name), true) ||
			!pg_verifymbstr(value.data, value.len, true))
			continue;
		if (buf.len > 1)
			appendStringInfoChar(&buf, ',');
		escape_json(&buf, r->headers[i].name);
		appendStringInfoChar(&buf, ':');
		escape_json(&buf, value.data);
	}
	appendStringInfoChar(&buf, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data));
}

/* ---- the database's side ---- */

static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SetUserIdAndSecContext(guard_worker(), SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

static void
commit(void)
{
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
recover(void)
{
	FlushErrorState();
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	AbortCurrentTransaction();
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* In the transaction: what a request comes to.  The text is allocated in context. */
static void
receive(Answer *a, MemoryContext context)
{
	static SPIPlanPtr plan = NULL;
	ServerRequest *r = a->request;
	Guard		guard;
	Datum		values[4];
	bytea	   *body;
	char	   *tenant;
	char	   *source;
	bool		isnull;

	if (!read_path(r->target, &tenant, &source) || !pg_verifymbstr(r->target, strlen(r->target), true))
	{
		a->status = 404;
		a->text = "{\"error\": \"not found\"}";
		return;
	}
	body = palloc(VARHDRSZ + r->len);
	SET_VARSIZE(body, VARHDRSZ + r->len);
	if (r->len > 0)
		memcpy(VARDATA(body), r->body, r->len);
	values[0] = CStringGetTextDatum(source);
	values[1] = headers_json(r);
	values[2] = PointerGetDatum(body);
	values[3] = CStringGetTextDatum(r->target);

	guard_enter(&guard, tenant);
	SPI_connect();
	if (plan == NULL)
	{
		Oid			types[] = {TEXTOID, JSONBOID, BYTEAOID, TEXTOID};

		plan = SPI_prepare(RECEIVE, lengthof(types), types);
		if (plan == NULL)
			elog(ERROR, "could not prepare to receive: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
	}
	if (SPI_execute_plan(plan, values, NULL, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "a webhook has no answer");
	a->status = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	a->text = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2));
	SPI_finish();
	guard_leave(&guard);
}

/* Several requests in one transaction; false if that failed, and none of them counts. */
static bool
receive_group(Answer *answers, int n, MemoryContext context)
{
	volatile bool done = false;

	PG_TRY();
	{
		begin();
		pgstat_report_activity(STATE_RUNNING, "contactsync: taking webhooks");
		for (int i = 0; i < n; i++)
			receive(&answers[i], context);
		commit();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *fault;

		MemoryContextSwitchTo(context);
		fault = CopyErrorData();
		recover();
		/* one by one it shows whose error it is; that somebody holds a lock is no news */
		if (n == 1 && fault->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ereport(LOG,
					(errcode(fault->sqlerrcode),
					 errmsg("contactsync listener: a webhook could not be taken: %s",
							/* a data exception may quote what somebody is called */
							ERRCODE_TO_CATEGORY(fault->sqlerrcode) == ERRCODE_DATA_EXCEPTION ?
							psprintf("data exception %s", unpack_sql_state(fault->sqlerrcode)) : fault->message),
					 errhint("Its sender was told to try again.")));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return done;
}

/* Take what has arrived; true if there was anything. */
static bool
take_requests(MemoryContext context)
{
	Answer	   *answers = palloc0(sizeof(Answer) * GROUP_MAX);
	int			n = 0;

	while (n < GROUP_MAX && (answers[n].request = server_next(server)) != NULL)
		n++;
	if (n == 0)
		return false;
	if (!receive_group(answers, n, context))
		for (int i = 0; i < n; i++)
			if (n == 1 || !receive_group(&answers[i], 1, context))
			{
				answers[i].status = 503;
				answers[i].text = "{\"error\": \"try again\"}";
			}
	for (int i = 0; i < n; i++)
		server_answer(answers[i].request, answers[i].status, answers[i].text);
	return true;
}

/*
 * Is there the extension, and room in the inbox?  Whether some tenant has more
 * than so many events waiting is seen at the end of its index.
 */
static bool
is_ready(MemoryContext context)
{
	volatile bool ready = false;

	PG_TRY();
	{
		Guard		guard;
		bool		isnull;

		begin();
		if (!OidIsValid(get_extension_oid("contactsync", true)))
			proc_exit(0);
		guard_enter(&guard, DEFAULT_TENANT);
		SPI_connect();
		if (SPI_execute("SELECT contactsync._is_activated()", true, 1) != SPI_OK_SELECT || SPI_processed != 1)
			elog(ERROR, "could not look whether this database is active");
		ready = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		guard_leave(&guard);
		if (ready && guc_inbox_limit > 0)
		{
			if (SPI_execute(psprintf("SELECT FROM contactsync.tenants t WHERE EXISTS (SELECT FROM contactsync.inbox i "
									 "WHERE i.tenant_id = t.tenant_id AND i.failed_at IS NULL OFFSET %d)", guc_inbox_limit),
							true, 1) != SPI_OK_SELECT)
				elog(ERROR, "could not look for room in the inbox");
			ready = SPI_processed == 0;
		}
		SPI_finish();
		commit();
	}
	PG_CATCH();
	{
		ready = false;
		MemoryContextSwitchTo(context);
		recover();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return ready;
}

static void
listener_exit(int code, Datum arg)
{
	if (server)
		server_stop(server);
	server = NULL;
	worker_listener_gone();
}

void
webhook_listener_main(Datum arg)
{
	MemoryContext context;
	ServerLimits limits = {.seconds = REQUEST_SECONDS, .body = MAX_BODY};
	char		error[256];
	char	   *address;
	TimestampTz checked = 0;
	bool		ready = true;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	before_shmem_exit(listener_exit, (Datum) 0);
	if (!worker_listener_here(DatumGetObjectId(arg)))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	worker_fix_settings();
	pgstat_report_appname("contactsync listener");
	context = AllocSetContextCreate(TopMemoryContext, "contactsync listener", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);

	address = MemoryContextStrdup(TopMemoryContext, guc_listen);
	limits.connections = guc_listen_connections;
	server = server_start(address, &limits, error, sizeof(error));
	if (server == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("contactsync could not listen at \"%s\": %s", address, error),
				 errhint("Set contactsync.listen to an address that is free; by ALTER DATABASE ... SET where several databases have the extension.")));
	ereport(LOG, (errmsg("contactsync listens at \"%s\"", address)));

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		long		wait;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			/* the worker starts another one */
			if (!guc_enabled || strcmp(guc_listen, address) != 0 || guc_listen_connections != limits.connections)
				proc_exit(0);
		}
		server_poll(server);
		if (TimestampDifferenceExceeds(checked, now, ready ? BUSY_CHECK_MS * 10 : BUSY_CHECK_MS))
		{
			ready = is_ready(context);
			server_set_busy(server, !ready);
			checked = now;
		}
		if (take_requests(context))
		{
			/* what waits is looked at once a second while there is traffic */
			if (TimestampDifferenceExceeds(checked, now, BUSY_CHECK_MS))
				checked = 0;
			MemoryContextReset(context);
			continue;
		}
		MemoryContextReset(context);
		wait = server_timeout(server);
		/* an idle listener has nothing to look after */
		if (!ready)
			wait = wait < 0 ? BUSY_CHECK_MS : Min(wait, BUSY_CHECK_MS);
		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH | (wait >= 0 ? WL_TIMEOUT : 0),
								 server_fd(server), wait, PG_WAIT_EXTENSION);
	}
}
