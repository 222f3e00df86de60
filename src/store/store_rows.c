/*
 * store_rows.c
 *		Rows to structs, and arrays of parameters.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "contactsync.h"
#include "store/store.h"

#define MAX_PLANS	128

/* Kept plans, by the address of their text. */
static struct
{
	const char *sql;
	SPIPlanPtr	plan;
}			plans[MAX_PLANS];

static bool reading = false;	/* see store_set_read_only */

Oid
store_contact_type(void)
{
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("contact"),
						   ObjectIdGetDatum(get_namespace_oid(CONTACTSYNC_SCHEMA, false)));
}

void
store_array_init(StoreArray *a, Oid type)
{
	a->type = type;
	a->n = 0;
	a->max = 64;
	a->values = palloc(sizeof(Datum) * a->max);
	a->nulls = palloc(sizeof(bool) * a->max);
}

void
store_array_add(StoreArray *a, Datum value, bool isnull)
{
	if (a->n == a->max)
	{
		a->max *= 2;
		a->values = repalloc(a->values, sizeof(Datum) * a->max);
		a->nulls = repalloc(a->nulls, sizeof(bool) * a->max);
	}
	a->values[a->n] = value;
	a->nulls[a->n++] = isnull;
}

void
store_array_add_text(StoreArray *a, StrView s)
{
	if (s.ptr == NULL)
		store_array_add(a, (Datum) 0, true);
	else
		store_array_add(a, PointerGetDatum(cstring_to_text_with_len(s.ptr, s.len)), false);
}

void
store_array_add_name(StoreArray *a, StrView s)
{
	/* most often it is the one before */
	for (int i = a->n - 1; i >= 0; i--)
	{
		const text *t = (const text *) DatumGetPointer(a->values[i]);

		if (VARSIZE_ANY_EXHDR(t) == s.len && memcmp(VARDATA_ANY(t), s.ptr, s.len) == 0)
			return;
	}
	store_array_add_text(a, s);
}

void
store_array_add_time(StoreArray *a, int64 t)
{
	store_array_add(a, TimestampTzGetDatum(t), t == MERGE_TIME_MIN);
}

bool
store_set_read_only(bool read_only)
{
	bool		before = reading;

	reading = read_only;
	return before;
}

bool
store_is_read_only(void)
{
	return reading;
}

/* Run a statement whose plan is kept. */
static uint64
run(const char *sql, int nargs, Oid *types, Datum *values)
{
	SPIPlanPtr	plan = NULL;
	int			slot;

	for (slot = 0; slot < MAX_PLANS && plans[slot].sql; slot++)
	{
		if (plans[slot].sql == sql)
		{
			plan = plans[slot].plan;
			break;
		}
	}
	if (plan && !SPI_plan_is_valid(plan))
	{
		/* the extension was made anew, say: even types may be others */
		SPI_freeplan(plan);
		plans[slot].plan = plan = NULL;
	}
	if (plan == NULL)
	{
		plan = SPI_prepare(sql, nargs, types);
		if (plan == NULL)
			elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
		if (slot < MAX_PLANS)
		{
			SPI_keepplan(plan);
			plans[slot].sql = sql;
			plans[slot].plan = plan;
		}
	}
	if (SPI_execute_plan(plan, values, NULL, reading, 0) < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(SPI_result));
	return SPI_processed;
}

uint64
store_run(const char *sql, int nargs, StoreArray **args)
{
	Oid			types[16];
	Datum		values[16];

	Assert(nargs <= lengthof(types));
	for (int i = 0; i < nargs; i++)
	{
		int16		len;
		bool		byval;
		char		align;
		int			dims[1] = {args[i]->n};
		int			lbs[1] = {1};

		get_typlenbyvalalign(args[i]->type, &len, &byval, &align);
		types[i] = get_array_type(args[i]->type);
		values[i] = PointerGetDatum(construct_md_array(args[i]->values, args[i]->nulls, 1, dims, lbs,
													   args[i]->type, len, byval, align));
	}
	return run(sql, nargs, types, values);
}

void
store_rows_init(StoreRows *rows, const StoreColumn *columns, int ncolumns)
{
	Assert(ncolumns <= STORE_MAX_COLUMNS);
	rows->desc = CreateTemplateTupleDesc(ncolumns);
	for (int i = 0; i < ncolumns; i++)
		TupleDescInitEntry(rows->desc, i + 1, columns[i].name,
						   OidIsValid(columns[i].type) ? columns[i].type : store_contact_type(), -1, 0);
	rows->tuples = NULL;
	rows->direct = NULL;
	rows->context = CurrentMemoryContext;
	rows->scratch = AllocSetContextCreate(CurrentMemoryContext, "contactsync row", ALLOCSET_SMALL_SIZES);
	rows->n = 0;
	rows->column = 0;
}

static void
put(StoreRows *rows, Datum value, bool isnull)
{
	rows->values[rows->column] = value;
	rows->nulls[rows->column++] = isnull;
	if (rows->column < rows->desc->natts)
		return;
	if (rows->direct)
		store_table_put(rows);
	else
	{
		MemoryContext context = MemoryContextSwitchTo(rows->context);

		if (rows->tuples == NULL)
			rows->tuples = tuplestore_begin_heap(true, false, work_mem);
		MemoryContextSwitchTo(context);
		tuplestore_putvalues(rows->tuples, rows->desc, rows->values, rows->nulls);
	}
	MemoryContextReset(rows->scratch);
	rows->column = 0;
	rows->n++;
}

void
store_put(StoreRows *rows, Datum value)
{
	put(rows, value, false);
}

void
store_put_null(StoreRows *rows)
{
	put(rows, (Datum) 0, true);
}

void
store_put_text(StoreRows *rows, StrView s)
{
	if (s.ptr == NULL)
		put(rows, (Datum) 0, true);
	else
		store_put_bytes(rows, s.ptr, s.len);
}

/* text is laid out as bytea is */
void
store_put_bytes(StoreRows *rows, const void *bytes, int len)
{
	bytea	   *b = MemoryContextAlloc(rows->scratch, VARHDRSZ + len);

	SET_VARSIZE(b, VARHDRSZ + len);
	memcpy(VARDATA(b), bytes, len);
	put(rows, PointerGetDatum(b), false);
}

void
store_put_time(StoreRows *rows, int64 t)
{
	put(rows, TimestampTzGetDatum(t), t == MERGE_TIME_MIN);
}

uint64
store_run_rows(const char *sql, StoreRows *rows)
{
	EphemeralNamedRelationData relation = {0};
	uint64		n = 0;

	if (rows->n > 0)
	{
		relation.md.name = "u";
		relation.md.reliddesc = InvalidOid;
		relation.md.tupdesc = rows->desc;
		relation.md.enrtype = ENR_NAMED_TUPLESTORE;
		relation.md.enrtuples = rows->n;
		relation.reldata = rows->tuples;
		if (SPI_register_relation(&relation) != SPI_OK_REL_REGISTER)
			elog(ERROR, "could not register rows");
		n = run(sql, 0, NULL, NULL);
		if (SPI_unregister_relation("u") != SPI_OK_REL_UNREGISTER)
			elog(ERROR, "could not unregister rows");
	}
	if (rows->tuples)
		tuplestore_end(rows->tuples);
	MemoryContextDelete(rows->scratch);
	return n;
}

Datum
store_value(uint64 row, int col, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col, isnull);
}

StrView
store_text(uint64 row, int col)
{
	StrView		s = {NULL, 0};
	bool		isnull;
	Datum		d = store_value(row, col, &isnull);

	if (!isnull)
	{
		text	   *t = DatumGetTextPP(d);

		s.ptr = VARDATA_ANY(t);
		s.len = VARSIZE_ANY_EXHDR(t);
	}
	return s;
}

int64
store_int8(uint64 row, int col)
{
	bool		isnull;
	Datum		d = store_value(row, col, &isnull);

	return isnull ? 0 : DatumGetInt64(d);
}

int64
store_time(uint64 row, int col)
{
	bool		isnull;
	Datum		d = store_value(row, col, &isnull);

	return isnull ? MERGE_TIME_MIN : DatumGetTimestampTz(d);
}

static int
element_cmp(const void *a, const void *b)
{
	return contact_item_cmp(a, b);
}

StrView *
store_names(uint64 row, int col, int *n)
{
	bool		isnull;
	Datum		d = store_value(row, col, &isnull);

	*n = 0;
	return isnull ? NULL : store_texts(d, n);
}

StrView *
store_texts(Datum d, int *n)
{
	Datum	   *values;
	bool	   *nulls;
	StrView    *names;

	deconstruct_array(DatumGetArrayTypeP(d), TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, n);
	names = palloc(sizeof(StrView) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		text	   *t = DatumGetTextPP(values[i]);

		names[i].ptr = VARDATA_ANY(t);
		names[i].len = VARSIZE_ANY_EXHDR(t);
	}
	return names;
}

void
store_covers_parse(Datum covers, ContactClaims *claims)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(covers), TEXTOID, -1, false, TYPALIGN_INT,
					  &values, &nulls, &n);
	claims->elements = palloc0(sizeof(ContactItem) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		text	   *t = DatumGetTextPP(values[i]);
		const char *p = VARDATA_ANY(t);
		int			len = VARSIZE_ANY_EXHDR(t);
		bool		gone = len > 0 && p[0] == '-';
		const char *colon;
		int			field;

		if (len == 1 && p[0] == '*')
		{
			claims->covers = (1U << CF_COUNT) - 1;
			continue;
		}
		p += gone;
		len -= gone;
		colon = memchr(p, ':', len);
		field = contact_field_lookup(p, colon ? colon - p : len);
		if (field < 0)
			continue;
		if (colon == NULL)
			claims->covers |= CF_BIT(field);
		else
		{
			ContactItem *e = &claims->elements[claims->nelements++];

			e->field = field;
			e->flags = gone ? CI_TOMBSTONE : 0;
			e->key.ptr = colon + 1;
			e->key.len = p + len - e->key.ptr;
		}
	}
	qsort(claims->elements, claims->nelements, sizeof(ContactItem), element_cmp);
}

/* What claims cover, as a text[]. */
Datum
store_covers_array(const ContactClaims *claims)
{
	Datum	   *values = palloc(sizeof(Datum) * (CF_COUNT + claims->nelements));
	int			n = 0;

	if (claims->covers == (1U << CF_COUNT) - 1)
		values[n++] = PointerGetDatum(cstring_to_text("*"));
	else
	{
		for (int f = 0; f < CF_COUNT; f++)
			if (claims->covers & CF_BIT(f))
				values[n++] = PointerGetDatum(cstring_to_text(contact_field_names[f]));
		for (int i = 0; i < claims->nelements; i++)
		{
			const ContactItem *e = &claims->elements[i];

			values[n++] = PointerGetDatum(cstring_to_text(psprintf("%s%s:%.*s",
																   e->flags & CI_TOMBSTONE ? "-" : "",
																   contact_field_names[e->field],
																   e->key.len, e->key.ptr)));
		}
	}
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* The same as text. */
StrView
store_covers_text(const ContactClaims *claims)
{
	StrView		s;

	/* the usual cases first */
	if (claims->nelements == 0 && (claims->covers == 0 || claims->covers == (1U << CF_COUNT) - 1))
		return strview_of(claims->covers == 0 ? "{}" : "{*}");
	s.ptr = OidOutputFunctionCall(F_ARRAY_OUT, store_covers_array(claims));
	s.len = strlen(s.ptr);
	return s;
}

static ContactClaims
coverage_claims(const MergeCoverage *coverage)
{
	ContactClaims claims = {0};

	claims.covers = coverage->fields;
	claims.elements = coverage->elements;
	claims.nelements = coverage->nelements;
	return claims;
}

StrView
store_coverage_text(const MergeCoverage *coverage)
{
	ContactClaims claims = coverage_claims(coverage);

	return store_covers_text(&claims);
}

Datum
store_coverage_array(const MergeCoverage *coverage)
{
	ContactClaims claims = coverage_claims(coverage);

	return store_covers_array(&claims);
}

MergeKind
store_kind(StrView s)
{
	static const char *const names[] = {"snapshot", "patch", "delete", "undelete", "base", "merge"};

	/* what was merged into another is gone */
	for (int i = 0; i < lengthof(names); i++)
		if (s.len == strlen(names[i]) && memcmp(s.ptr, names[i], s.len) == 0)
			return i <= MK_BASE ? i : MK_DELETE;
	elog(ERROR, "unknown kind of observation");
}

/* The policy in force. */
void
store_policy(MergePolicy *policy)
{
	if (store_run("SELECT version, policy FROM contactsync.policies "
				  "WHERE tenant_id = contactsync.current_tenant() "
				  "ORDER BY version DESC LIMIT 1", 0, NULL) == 0)
	{
		merge_policy_defaults(policy);
		return;
	}
	else
	{
		bool		isnull;

		merge_policy_read(DatumGetMergePolicyP(store_value(0, 2, &isnull)), policy);
		policy->version = store_int8(0, 1);
	}
}
