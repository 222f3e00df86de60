/*
 * store_table.c
 *		Many rows of one table at a time, found, added, replaced and removed.
 *
 * What is done here is what a statement would do: "INSERT INTO contactsync.<table>
 * (...) SELECT ... FROM u", and its like.  Where nobody could tell the difference,
 * the rows go through the access methods, as those of COPY do, which costs a third of what the
 * executor takes.  A table with triggers, or one that may lie on other nodes, gets
 * the statement.  Row security is the same for both: rows are of the pinned tenant.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "contactsync.h"
#include "store/guard.h"
#include "store/store.h"

#define CHUNK_ROWS		128		/* that are written at a time */

typedef enum TableUse
{
	USE_READ,
	USE_INSERT,
	USE_UPDATE,
	USE_DELETE
} TableUse;

struct StoreTable
{
	Relation	rel;
	MemoryContext context;		/* of the rows */
	EState	   *estate;
	ResultRelInfo *info;
	AttrNumber *target;			/* by column of the rows */
	int			ndefaults;		/* of columns that the rows do not have */
	AttrNumber *defaulted;
	ExprState **defaults;
	Datum	   *values;			/* of a row, by attribute */
	bool	   *nulls;
	HeapTuple  *tuples;
	ItemPointerData *places;	/* of what they replace */
	int			max;
};

static Relation
open_table(const char *name, LOCKMODE lockmode)
{
	return table_open(get_relname_relid(name, get_namespace_oid(CONTACTSYNC_SCHEMA, false)), lockmode);
}

/* Of the first call in a transaction, since it is asked for each table of each batch. */
static bool
may_be_elsewhere(void)
{
	static LocalTransactionId asked = InvalidLocalTransactionId;
	static bool answer;

	if (asked != MyLocalTransactionId || asked == InvalidLocalTransactionId)
	{
		answer = OidIsValid(get_extension_oid("citus", true));
		asked = MyLocalTransactionId;
	}
	return answer;
}

/* Can its rows be handled here, with nobody missing the statement? */
static bool
is_plain(Relation rel, TableUse use)
{
	const TriggerDesc *t = rel->trigdesc;

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relam != HEAP_TABLE_AM_OID || rel->rd_rules != NULL ||
		may_be_elsewhere())
		return false;
	if (t == NULL)
		return true;
	switch (use)
	{
		case USE_READ:
			return true;
		case USE_INSERT:
			return !(t->trig_insert_before_row || t->trig_insert_after_row || t->trig_insert_before_statement ||
					 t->trig_insert_after_statement || t->trig_insert_new_table);
		case USE_UPDATE:
			return !(t->trig_update_before_row || t->trig_update_after_row || t->trig_update_before_statement ||
					 t->trig_update_after_statement || t->trig_update_old_table || t->trig_update_new_table);
		case USE_DELETE:
			return !(t->trig_delete_before_row || t->trig_delete_after_row || t->trig_delete_before_statement ||
					 t->trig_delete_after_statement || t->trig_delete_old_table);
	}
	return false;
}

static AttrNumber
attribute(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && namestrcmp(&TupleDescAttr(desc, i)->attname, name) == 0)
			return i + 1;
	elog(ERROR, "column \"%s\" does not exist", name);
}

/* A statement made here is kept by its address, as the literals of others are. */
static const char *
keep_statement(const char *sql)
{
	static List *kept = NIL;
	MemoryContext context;
	ListCell   *cell;

	foreach(cell, kept)
		if (strcmp(lfirst(cell), sql) == 0)
			return lfirst(cell);
	context = MemoryContextSwitchTo(TopMemoryContext);
	kept = lappend(kept, pstrdup(sql));
	MemoryContextSwitchTo(context);
	return llast(kept);
}

/* ---- rows found ---- */

/* What a statement would see now. */
static Snapshot
take_snapshot(void)
{
	if (store_is_read_only())
		return RegisterSnapshot(GetActiveSnapshot());
	CommandCounterIncrement();
	return RegisterSnapshot(GetTransactionSnapshot());
}

static StoreFound *
find_by_statement(const char *table, Relation index, bool range, bool one, int nkeys, StoreArray **keys)
{
	StoreFound *found = palloc0(sizeof(StoreFound));
	StringInfoData sql;
	int			nargs = range ? 2 : nkeys;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT r.*, u.i::pg_catalog.int4 FROM ROWS FROM (");
	for (int i = 0; i < nargs; i++)
		appendStringInfo(&sql, "%spg_catalog.unnest($%d)", i ? ", " : "", i + 1);
	appendStringInfoString(&sql, ") WITH ORDINALITY AS u (");
	for (int i = 0; i < nargs; i++)
		appendStringInfo(&sql, "k%d, ", i);
	appendStringInfo(&sql, "i) CROSS JOIN LATERAL (SELECT x.* FROM contactsync.%s x "
					 "WHERE x.tenant_id = contactsync.current_tenant()", quote_identifier(table));
	for (int i = 0; i < nargs; i++)
		appendStringInfo(&sql, " AND x.%s %s u.k%d", quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(index), range ? 1 : i + 1)->attname)),
						 !range ? "=" : i == 0 ? ">=" : "<=", i);
	appendStringInfo(&sql, " %s) AS r ORDER BY u.i", one ? "LIMIT 1" : "OFFSET 0");
	found->n = store_run(keep_statement(sql.data), nargs, keys);
	found->desc = SPI_tuptable->tupdesc;
	found->tuples = SPI_tuptable->vals;
	found->which = palloc_extended(sizeof(int) * Max(found->n, 1), MCXT_ALLOC_HUGE);
	for (int64 i = 0; i < found->n; i++)
	{
		bool		isnull;

		found->which[i] = DatumGetInt32(store_value(i, found->desc->natts, &isnull)) - 1;
	}
	return found;
}

static void
scan_key(ScanKey key, Relation index, AttrNumber column, StrategyNumber strategy, Datum value)
{
	Oid			type = index->rd_opcintype[column - 1];
	Oid			op = get_opfamily_member(index->rd_opfamily[column - 1], type, type, strategy);

	if (!OidIsValid(op))
		elog(ERROR, "index \"%s\" is not one of the kind expected", RelationGetRelationName(index));
	ScanKeyEntryInitialize(key, 0, column, strategy, InvalidOid, index->rd_indcollation[column - 1], get_opcode(op), value);
}

/* range: from the first key of each to the second, of the column after the tenant's; one: of each, one is enough */
static StoreFound *
find(const char *table, const char *index_name, bool range, bool one, int nkeys, StoreArray **keys)
{
	Relation	rel = open_table(table, AccessShareLock);
	Relation	index = index_open(get_relname_relid(index_name, RelationGetNamespace(rel)), AccessShareLock);
	StoreFound *found;
	ScanKeyData scankeys[STORE_MAX_KEYS + 1];
	IndexScanDesc scan;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	int64		max = Max(keys[0]->n, 16);

	Assert(nkeys <= STORE_MAX_KEYS);
	if (!is_plain(rel, USE_READ))
	{
		found = find_by_statement(table, index, range, one, nkeys, keys);
		index_close(index, NoLock);
		table_close(rel, NoLock);
		return found;
	}
	found = palloc0(sizeof(StoreFound));
	found->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	found->tuples = palloc_extended(sizeof(HeapTuple) * max, MCXT_ALLOC_HUGE);
	found->which = palloc_extended(sizeof(int) * max, MCXT_ALLOC_HUGE);
	scan_key(&scankeys[0], index, 1, BTEqualStrategyNumber, CStringGetTextDatum(guard_current_tenant()));
	for (int k = 0; k < nkeys; k++)
		scan_key(&scankeys[k + 1], index, range ? 2 : k + 2,
				 !range ? BTEqualStrategyNumber : k == 0 ? BTGreaterEqualStrategyNumber : BTLessEqualStrategyNumber, (Datum) 0);
	snapshot = take_snapshot();
	slot = table_slot_create(rel, NULL);
	scan = index_beginscan_of(rel, index, snapshot, nkeys + 1);
	for (int i = 0; i < keys[0]->n; i++)
	{
		bool		isnull = false;

		CHECK_FOR_INTERRUPTS();
		for (int k = 0; k < nkeys; k++)
		{
			scankeys[k + 1].sk_argument = keys[k]->values[i];
			isnull |= keys[k]->nulls[i];
		}
		if (isnull)
			continue;
		index_rescan(scan, scankeys, nkeys + 1, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			if (found->n == max)
			{
				max *= 2;
				found->tuples = repalloc_huge(found->tuples, sizeof(HeapTuple) * max);
				found->which = repalloc_huge(found->which, sizeof(int) * max);
			}
			found->which[found->n] = i;
			found->tuples[found->n++] = ExecCopySlotHeapTuple(slot);
			if (one)
				break;
		}
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, NoLock);
	table_close(rel, NoLock);
	return found;
}

static StoreFound *
with_columns(StoreFound *found, const char *const *columns, int ncolumns)
{
	found->columns = palloc(sizeof(AttrNumber) * ncolumns);
	for (int i = 0; i < ncolumns; i++)
		found->columns[i] = attribute(found->desc, columns[i]);
	found->values = palloc(sizeof(Datum) * found->desc->natts);
	found->nulls = palloc(sizeof(bool) * found->desc->natts);
	return found;
}

StoreFound *
store_find(const char *table, const char *index, const char *const *columns, int ncolumns, int nkeys, StoreArray **keys)
{
	return with_columns(find(table, index, false, false, nkeys, keys), columns, ncolumns);
}

StoreFound *
store_find_one(const char *table, const char *index, const char *const *columns, int ncolumns, int nkeys, StoreArray **keys)
{
	return with_columns(find(table, index, false, true, nkeys, keys), columns, ncolumns);
}

StoreFound *
store_find_between(const char *table, const char *index, const char *const *columns, int ncolumns,
				   StoreArray *from, StoreArray *to)
{
	return with_columns(find(table, index, true, false, 2, (StoreArray *[]) {from, to}), columns, ncolumns);
}

void
store_found_row(StoreFound *found, int64 i)
{
	heap_deform_tuple(found->tuples[i], found->desc, found->values, found->nulls);
}

StrView
store_found_text(const StoreFound *found, int column)
{
	bool		isnull;
	Datum		d = store_found_value(found, column, &isnull);
	text	   *t;

	if (isnull)
		return strview(NULL, 0);
	t = DatumGetTextPP(d);
	return (StrView) {VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t)};
}

/* ---- rows written ---- */

static void
table_begin(StoreRows *rows, const StoreColumn *columns, int ncolumns)
{
	StoreTable *t = palloc0(sizeof(StoreTable));
	TupleDesc	desc = RelationGetDescr(rows->rel);
	bool	   *given = palloc0(sizeof(bool) * desc->natts);

	rows->direct = t;
	t->context = CurrentMemoryContext;
	t->rel = rows->rel;
	t->target = palloc(sizeof(AttrNumber) * ncolumns);
	for (int i = 0; i < ncolumns; i++)
	{
		t->target[i] = attribute(desc, columns[i].name);
		given[t->target[i] - 1] = true;
	}
	t->values = palloc0(sizeof(Datum) * desc->natts);
	t->nulls = palloc(sizeof(bool) * desc->natts);
	t->max = 64;
	t->tuples = palloc(sizeof(HeapTuple) * t->max);
	t->places = palloc(sizeof(ItemPointerData) * t->max);
	memset(t->nulls, true, sizeof(bool) * desc->natts);
	t->defaulted = palloc(sizeof(AttrNumber) * desc->natts);
	t->defaults = palloc(sizeof(ExprState *) * desc->natts);
	t->estate = CreateExecutorState();
	if (rows->over)
		return;
	t->values[attribute(desc, "tenant_id") - 1] = CStringGetTextDatum(guard_current_tenant());
	t->nulls[attribute(desc, "tenant_id") - 1] = false;
	given[attribute(desc, "tenant_id") - 1] = true;
	for (int i = 0; i < desc->natts; i++)
	{
		Node	   *expr = given[i] || TupleDescAttr(desc, i)->attisdropped ? NULL : build_column_default(rows->rel, i + 1);

		if (expr == NULL)
			continue;
		t->defaulted[t->ndefaults] = i + 1;
		t->defaults[t->ndefaults++] = ExecPrepareExpr((Expr *) expr, t->estate);
	}
}

static void
rows_for(StoreRows *rows, const char *table, const StoreColumn *columns, int ncolumns, bool over)
{
	store_rows_init(rows, columns, ncolumns);
	rows->table = table;
	rows->columns = columns;
	rows->over = over;
	rows->rel = open_table(table, RowExclusiveLock);
	rows->direct = NULL;
	if (is_plain(rows->rel, over ? USE_UPDATE : USE_INSERT))
		table_begin(rows, columns, ncolumns);
}

void
store_rows_for(StoreRows *rows, const char *table, const StoreColumn *columns, int ncolumns)
{
	rows_for(rows, table, columns, ncolumns, false);
}

void
store_rows_over(StoreRows *rows, const char *table, const StoreColumn *columns, int ncolumns)
{
	rows_for(rows, table, columns, ncolumns, true);
}

/* Make a tuple of the row that has been put; of what it replaces, what it does not say. */
void
store_table_put(StoreRows *rows)
{
	StoreTable *t = rows->direct;
	TupleDesc	desc = RelationGetDescr(t->rel);
	ExprContext *econtext = GetPerTupleExprContext(t->estate);
	MemoryContext context;

	if (rows->n == t->max)
	{
		t->max *= 2;
		t->tuples = repalloc_huge(t->tuples, sizeof(HeapTuple) * t->max);
		t->places = repalloc_huge(t->places, sizeof(ItemPointerData) * t->max);
	}
	for (int i = 0; i < rows->desc->natts; i++)
	{
		t->values[t->target[i] - 1] = rows->values[i];
		t->nulls[t->target[i] - 1] = rows->nulls[i];
	}
	context = MemoryContextSwitchTo(GetPerTupleMemoryContext(t->estate));
	for (int i = 0; i < t->ndefaults; i++)
		t->values[t->defaulted[i] - 1] = ExecEvalExpr(t->defaults[i], econtext, &t->nulls[t->defaulted[i] - 1]);
	MemoryContextSwitchTo(t->context);
	if (rows->over)
	{
		bool	   *replaced = palloc0(sizeof(bool) * desc->natts);

		for (int i = 0; i < rows->desc->natts; i++)
			replaced[t->target[i] - 1] = true;
		t->places[rows->n] = rows->old->t_self;
		t->tuples[rows->n] = heap_modify_tuple(rows->old, desc, t->values, t->nulls, replaced);
		pfree(replaced);
	}
	else
		t->tuples[rows->n] = heap_form_tuple(desc, t->values, t->nulls);
	MemoryContextSwitchTo(context);
	ResetPerTupleExprContext(t->estate);
}

static void
add_index_entries(StoreTable *t, TupleTableSlot *slot, bool update)
{
	if (t->info->ri_NumIndices > 0)
		list_free(insert_index_tuples(t->info, slot, t->estate, update));
}

static void
insert_chunk(StoreTable *t, TupleTableSlot **slots, int n)
{
	for (int i = 0; i < n; i++)
		if (t->rel->rd_att->constr)
			ExecConstraints(t->info, slots[i], t->estate);
	if (t->rel->rd_rel->relispartition)
		for (int i = 0; i < n; i++)
			ExecPartitionCheck(t->info, slots[i], t->estate, true);
	table_multi_insert(t->rel, slots, n, GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < n; i++)
	{
		add_index_entries(t, slots[i], false);
		ResetPerTupleExprContext(t->estate);
		ExecClearTuple(slots[i]);
	}
}

static void
update_one(StoreTable *t, TupleTableSlot *slot, ItemPointer place)
{
	TM_FailureData failure;
	LockTupleMode lockmode;
	update_kind indexed;

	if (t->rel->rd_att->constr)
		ExecConstraints(t->info, slot, t->estate);
	if (table_tuple_update(t->rel, place, slot, GetCurrentCommandId(true), GetActiveSnapshot(), InvalidSnapshot, true,
						   &failure, &lockmode, &indexed) != TM_Ok)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a row of table \"%s\" was changed by somebody else meanwhile", RelationGetRelationName(t->rel)),
				 errhint("Tables of contactsync are changed through its functions.")));
	if (indexed)				/* or any, as TU_None is the first of its kind */
		add_index_entries(t, slot, true);
	ResetPerTupleExprContext(t->estate);
	ExecClearTuple(slot);
}

static void
write_direct(StoreRows *rows)
{
	StoreTable *t = rows->direct;
	TupleTableSlot *slots[CHUNK_ROWS];
	int			nslots = rows->over ? 1 : Min(CHUNK_ROWS, rows->n);

	t->info = makeNode(ResultRelInfo);
	InitResultRelInfo(t->info, t->rel, 0, NULL, 0);
	ExecOpenIndices(t->info, false);
	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(t->rel), &TTSOpsHeapTuple);
	if (rows->over)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		for (int i = 0; i < rows->n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			ExecStoreHeapTuple(t->tuples[i], slots[0], true);
			update_one(t, slots[0], &t->places[i]);
		}
		PopActiveSnapshot();
	}
	else
	{
		for (int from = 0; from < rows->n; from += nslots)
		{
			int			n = Min(nslots, rows->n - from);

			CHECK_FOR_INTERRUPTS();
			for (int i = 0; i < n; i++)
				ExecStoreHeapTuple(t->tuples[from + i], slots[i], true);
			insert_chunk(t, slots, n);
		}
	}
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	ExecCloseIndices(t->info);
	CommandCounterIncrement();
}

static const char *
insert_statement(const StoreRows *rows)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO contactsync.%s (", quote_identifier(rows->table));
	for (int i = 0; i < rows->desc->natts; i++)
		appendStringInfo(&sql, "%s%s", i ? ", " : "", quote_identifier(rows->columns[i].name));
	appendStringInfoString(&sql, ") SELECT ");
	for (int i = 0; i < rows->desc->natts; i++)
		appendStringInfo(&sql, "%su.%s", i ? ", " : "", quote_identifier(rows->columns[i].name));
	appendStringInfoString(&sql, " FROM u");
	return keep_statement(sql.data);
}

static const char *
update_statement(const StoreRows *rows)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE contactsync.%s AS r SET ", quote_identifier(rows->table));
	for (int i = 1; i < rows->desc->natts; i++)
		appendStringInfo(&sql, "%s%s = u.%s", i > 1 ? ", " : "", quote_identifier(rows->columns[i].name),
						 quote_identifier(rows->columns[i].name));
	appendStringInfo(&sql, " FROM u WHERE r.tenant_id = contactsync.current_tenant() AND r.%s = u.%s",
					 quote_identifier(rows->columns[0].name), quote_identifier(rows->columns[0].name));
	return keep_statement(sql.data);
}

void
store_write(StoreRows *rows)
{
	if (rows->direct == NULL)
		store_run_rows(rows->over ? update_statement(rows) : insert_statement(rows), rows);
	else
	{
		if (rows->n > 0)
			write_direct(rows);
		FreeExecutorState(rows->direct->estate);
		MemoryContextDelete(rows->scratch);
	}
	table_close(rows->rel, NoLock);
}

/* ---- rows removed ---- */

uint64
store_remove(const char *table, const StoreArray *places)
{
	Relation	rel = open_table(table, RowExclusiveLock);
	uint64		removed = 0;

	if (is_plain(rel, USE_DELETE))
	{
		PushActiveSnapshot(GetLatestSnapshot());
		for (int i = 0; i < places->n; i++)
		{
			TM_FailureData failure;

			CHECK_FOR_INTERRUPTS();
			if (table_tuple_delete(rel, (ItemPointer) DatumGetPointer(places->values[i]), GetCurrentCommandId(true),
								   GetActiveSnapshot(), InvalidSnapshot, true, &failure, false) == TM_Ok)
				removed++;
		}
		PopActiveSnapshot();
		CommandCounterIncrement();
	}
	table_close(rel, NoLock);
	return removed;
}
