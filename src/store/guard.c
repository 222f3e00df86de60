/*
 * guard.c
 *		The one door through which a caller reaches tables it may not touch.
 *
 * See guard.h for the idea.  The pin and the caller are backend variables that
 * whoever entered the guard restores in PG_FINALLY, so that a subtransaction
 * rolled back inside leaves the outer pin alone.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "contactsync.h"
#include "guc.h"
#include "store/guard.h"

PG_FUNCTION_INFO_V1(guard_call);
PG_FUNCTION_INFO_V1(guard_current_tenant_sql);
PG_FUNCTION_INFO_V1(guard_caller_sql);
PG_FUNCTION_INFO_V1(guard_pin_sql);
PG_FUNCTION_INFO_V1(guard_lock_tenant_sql);
PG_FUNCTION_INFO_V1(guard_require_active_sql);

static char *pinned_tenant = NULL;
static Oid	pinned_caller = InvalidOid;
static Oid	pinned_owner = InvalidOid;	/* who runs what is within a guard */

/* The last answer of guard_current_tenant, good within one transaction. */
static struct
{
	LocalTransactionId lxid;
	Oid			userid;
	char	   *tenant;
}			allowed = {InvalidLocalTransactionId, InvalidOid, NULL};

/*
 * Settings that could change what SQL text means, or what a value looks like
 * as text, with what they are inside the guard.
 */
static const struct
{
	const char *name;
	const char *value;
}			guard_settings[] =
{
	{"search_path", "pg_catalog, pg_temp"},
	{"row_security", "on"},
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
};

/* What a guard_call function keeps in fn_extra. */
typedef struct GuardTarget
{
	FmgrInfo	body;
	int			nargs;
	char	   *query;			/* set-returning bodies run through SPI */
	Oid		   *argtypes;
	TupleDesc	row;			/* of a function with several OUT parameters */
} GuardTarget;

/* A FATAL error does not pass PG_FINALLY, and 2PC keeps the backend. */
static void
guard_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT ||
		event == XACT_EVENT_PREPARE)
	{
		pinned_tenant = NULL;
		pinned_caller = pinned_owner = InvalidOid;
		allowed.lxid = InvalidLocalTransactionId;
	}
}

void
guard_init(void)
{
	RegisterXactCallback(guard_xact_callback, NULL);
}

Oid
guard_owner(void)
{
	return get_role_oid(CONTACTSYNC_OWNER, false);
}

Oid
guard_worker(void)
{
	return get_role_oid(CONTACTSYNC_WORKER, false);
}

/* Is the user a member of any of our group roles?  (Superusers are.) */
static bool
is_contactsync_member(Oid userid)
{
	static const char *const roles[] = {
		CONTACTSYNC_APP, CONTACTSYNC_ADMIN, CONTACTSYNC_ANALYST,
		CONTACTSYNC_WORKER, CONTACTSYNC_OWNER
	};

	for (int i = 0; i < lengthof(roles); i++)
	{
		Oid			role = get_role_oid(roles[i], true);

		if (OidIsValid(role) && is_member_of_role(userid, role))
			return true;
	}
	return false;
}

/*
 * May this user act for this tenant?  Reads tenants directly, as the system
 * reads its catalogs: the caller has no right to it, and row security asks us.
 */
static void
check_tenant(const char *tenant, Oid userid)
{
	Oid			nspid = get_namespace_oid(CONTACTSYNC_SCHEMA, false);
	Oid			relid = get_relname_relid("tenants", nspid);
	Oid			indexid = get_relname_relid("tenants_pkey", nspid);
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		found = false;
	bool		permitted = false;

	if (!OidIsValid(relid) || !OidIsValid(indexid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.tenants\" does not exist", CONTACTSYNC_SCHEMA),
				 errhint("Run CREATE EXTENSION contactsync in this database.")));

	rel = table_open(relid, AccessShareLock);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(tenant));
	key.sk_collation = C_COLLATION_OID;
	scan = systable_beginscan(rel, indexid, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		role = heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull);

		found = true;
		if (isnull)
			permitted = is_contactsync_member(userid);
		else
		{
			Oid			roleid = get_role_oid(NameStr(*DatumGetName(role)), true);

			permitted = OidIsValid(roleid) && is_member_of_role(userid, roleid);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	/* one who is no member of ours learns nothing from the difference */
	if (!permitted && (found || !is_contactsync_member(userid)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for tenant \"%s\"", tenant),
				 errhint("Set contactsync.tenant to a tenant whose role you are a member of.")));
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tenant \"%s\" does not exist", tenant),
				 errhint("See contactsync.add_tenant(); contactsync.tenant names the active tenant.")));
}

const char *
guard_current_tenant(void)
{
	Oid			userid = GetUserId();
	const char *tenant = guc_tenant ? guc_tenant : "";

	if (pinned_tenant != NULL &&
		(userid == pinned_owner || userid == guard_owner() || userid == guard_worker()))
		return pinned_tenant;

	if (allowed.lxid != InvalidLocalTransactionId &&
		allowed.lxid == MyLocalTransactionId &&
		allowed.userid == userid &&
		strcmp(allowed.tenant, tenant) == 0)
		return allowed.tenant;

	check_tenant(tenant, userid);

	allowed.lxid = InvalidLocalTransactionId;
	if (allowed.tenant)
		pfree(allowed.tenant);
	allowed.tenant = MemoryContextStrdup(TopMemoryContext, tenant);
	allowed.userid = userid;
	allowed.lxid = MyLocalTransactionId;
	return allowed.tenant;
}

Oid
guard_caller(void)
{
	return OidIsValid(pinned_caller) ? pinned_caller : GetUserId();
}

void
guard_enter(Guard *guard, const char *tenant)
{
	char	   *pin;
	Oid			owner = guard_owner();

	if (tenant == NULL)
		tenant = guard_current_tenant();
	pin = MemoryContextStrdup(TopTransactionContext, tenant);

	guard->save_pin = pinned_tenant;
	guard->save_caller = pinned_caller;
	GetUserIdAndSecContext(&guard->save_userid, &guard->save_sec_context);
	guard->nestlevel = NewGUCNestLevel();

	for (int i = 0; i < lengthof(guard_settings); i++)
	{
		const char *now = GetConfigOption(guard_settings[i].name, false, false);

		if (strcmp(now, guard_settings[i].value) != 0)
			(void) set_config_option(guard_settings[i].name, guard_settings[i].value,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}

	if (!OidIsValid(pinned_caller))
		pinned_caller = guard->save_userid;
	pinned_tenant = pin;
	pinned_owner = owner;
	SetUserIdAndSecContext(owner,
						   guard->save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
guard_leave(Guard *guard)
{
	SetUserIdAndSecContext(guard->save_userid, guard->save_sec_context);
	AtEOXact_GUC(true, guard->nestlevel);
	pinned_tenant = guard->save_pin;
	pinned_caller = guard->save_caller;
}

void
guard_join(const char *tenant, Oid caller)
{
	/* rights and settings came with the leader's state */
	pinned_tenant = MemoryContextStrdup(TopMemoryContext, tenant);
	pinned_caller = caller;
}

void
guard_lock_tenant(void)
{
	const char *tenant = guard_current_tenant();
	Oid			argtypes[1] = {TEXTOID};
	Datum		args[1];
	int			ret;

	/*
	 * The row orders the appliers, and makes a caller under REPEATABLE READ fail
	 * with 40001 if someone was here after its snapshot.  Not an advisory lock:
	 * that anybody could take, and hold the tenant up.
	 */
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	args[0] = CStringGetTextDatum(tenant);
	ret = SPI_execute_with_args("INSERT INTO contactsync.tenant_state AS t (tenant_id) VALUES ($1) "
								"ON CONFLICT (tenant_id) DO UPDATE SET generation = t.generation + 1",
								1, argtypes, args, NULL, false, 0);
	if (ret != SPI_OK_INSERT)
		elog(ERROR, "could not advance the tenant's generation: %s",
			 SPI_result_code_string(ret));
	SPI_finish();
}

void
guard_require_active(void)
{
	bool		isnull;
	bool		active;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute("SELECT contactsync._is_active()", false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read the activation of this database");
	active = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										1, &isnull));
	SPI_finish();

	if (!active)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("contactsync is dormant in this database"),
				 errdetail("It holds data that came from another database, by restore or as a copy."),
				 errhint("Call contactsync.activate() if this database shall sync in the original's place.")));
}

/* Find the body of a guarded function, and how to call it, for fn_extra. */
static void
resolve_target(FunctionCallInfo fcinfo)
{
	FmgrInfo   *flinfo = fcinfo->flinfo;
	MemoryContext oldcontext = MemoryContextSwitchTo(flinfo->fn_mcxt);
	GuardTarget *target = palloc0(sizeof(GuardTarget));
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(flinfo->fn_oid));
	Form_pg_proc proc;
	oidvector  *types;
	Oid			body;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", flinfo->fn_oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	name = psprintf("_%s", NameStr(proc->proname));
	types = &proc->proargtypes;
	body = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(name), PointerGetDatum(types),
						   ObjectIdGetDatum(proc->pronamespace));
	if (!OidIsValid(body))
		elog(ERROR, "function \"%s\" has no body \"%s\"", NameStr(proc->proname), name);

	target->nargs = types->dim1;
	if (proc->proretset)
	{
		StringInfoData buf;

		initStringInfo(&buf);
		appendStringInfo(&buf, "SELECT * FROM %s.%s(",
						 quote_identifier(get_namespace_name(proc->pronamespace)),
						 quote_identifier(name));
		for (int i = 0; i < target->nargs; i++)
			appendStringInfo(&buf, "%s$%d", i ? ", " : "", i + 1);
		appendStringInfoChar(&buf, ')');
		target->query = buf.data;
		target->argtypes = palloc(sizeof(Oid) * Max(target->nargs, 1));
		memcpy(target->argtypes, types->values, sizeof(Oid) * target->nargs);
	}
	else
	{
		fmgr_info_cxt(body, &target->body, flinfo->fn_mcxt);
		if (proc->prorettype == RECORDOID)
		{
			if (get_func_result_type(flinfo->fn_oid, NULL, &target->row) != TYPEFUNC_COMPOSITE)
				elog(ERROR, "function \"%s\" does not say what it returns",
					 NameStr(proc->proname));
			target->row = BlessTupleDesc(target->row);
		}
	}

	ReleaseSysCache(tuple);
	MemoryContextSwitchTo(oldcontext);
	flinfo->fn_extra = target;
}

/* Run a set-returning body and hand over its rows. */
static void
call_set(FunctionCallInfo fcinfo, GuardTarget *target)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum	   *values = palloc(sizeof(Datum) * Max(target->nargs, 1));
	char	   *nulls = palloc(Max(target->nargs, 1));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < target->nargs; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_with_args(target->query, target->nargs, target->argtypes,
							  values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not call the body of a guarded function");
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
}

/*
 * Call a body that returns one value.  A row is given the column names of the
 * function that was called: those of the body may differ from them, since an
 * argument and a column of one name would be ambiguous inside of it.
 */
static Datum
call_one(FunctionCallInfo fcinfo, GuardTarget *target)
{
	LOCAL_FCINFO(inner, FUNC_MAX_ARGS);
	Datum		result;

	/* nobody else looks after that for a function that is called directly */
	for (int i = 0; target->body.fn_strict && i < target->nargs; i++)
		if (PG_ARGISNULL(i))
			PG_RETURN_NULL();

	InitFunctionCallInfoData(*inner, &target->body, target->nargs,
							 fcinfo->fncollation, NULL, NULL);
	memcpy(inner->args, fcinfo->args, sizeof(NullableDatum) * target->nargs);
	result = FunctionCallInvoke(inner);
	fcinfo->isnull = inner->isnull;
	if (target->row != NULL && !inner->isnull)
	{
		HeapTupleHeader row = DatumGetHeapTupleHeaderCopy(result);

		HeapTupleHeaderSetTypeId(row, target->row->tdtypeid);
		HeapTupleHeaderSetTypMod(row, target->row->tdtypmod);
		result = HeapTupleHeaderGetDatum(row);
	}
	return result;
}

static void
call_guarded(FunctionCallInfo fcinfo, GuardTarget *target, Datum *result)
{
	Guard		guard;

	guard_enter(&guard, NULL);
	PG_TRY();
	{
		if (target->query)
			call_set(fcinfo, target);
		else
			*result = call_one(fcinfo, target);
	}
	PG_FINALLY();
	{
		guard_leave(&guard);
	}
	PG_END_TRY();
}

/*
 * guard_call(...)
 *		Enter the guard and call the body of the function that was called.
 */
Datum
guard_call(PG_FUNCTION_ARGS)
{
	Datum		result = (Datum) 0;

	if (fcinfo->flinfo->fn_extra == NULL)
		resolve_target(fcinfo);
	call_guarded(fcinfo, fcinfo->flinfo->fn_extra, &result);
	return result;
}

/*
 * current_tenant() -> text
 */
Datum
guard_current_tenant_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(guard_current_tenant()));
}

/*
 * _caller() -> name
 *		Who called the outermost guarded function.
 */
Datum
guard_caller_sql(PG_FUNCTION_ARGS)
{
	char	   *name = GetUserNameFromId(guard_caller(), false);

	PG_RETURN_DATUM(DirectFunctionCall1(namein, CStringGetDatum(name)));
}

/*
 * _pin(tenant text)
 *		Inside the guard, go over to another tenant: for functions that keep
 *		the tenants themselves in order.
 */
Datum
guard_pin_sql(PG_FUNCTION_ARGS)
{
	if (pinned_tenant == NULL)
		elog(ERROR, "no tenant is pinned");
	pinned_tenant = MemoryContextStrdup(TopTransactionContext,
										text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/*
 * _lock_tenant()
 */
Datum
guard_lock_tenant_sql(PG_FUNCTION_ARGS)
{
	guard_lock_tenant();
	PG_RETURN_VOID();
}

/*
 * _require_active()
 */
Datum
guard_require_active_sql(PG_FUNCTION_ARGS)
{
	guard_require_active();
	PG_RETURN_VOID();
}
