/*
 * store_resolve.c
 *		Contacts, conflicts and their audit rows, brought up to date.
 *
 * A contact is resolved from the states of its records and the decisions about
 * them.  What differs from the stored row is written, and each change leaves an
 * audit row in the same transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "stats/stats.h"
#include "store/guard.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_policy_used_sql);

/* Of the tenant, advanced under its lock: whoever commits later has a greater one. */
#define GENERATION \
	"(SELECT t.generation FROM contactsync.tenant_state t WHERE t.tenant_id = contactsync.current_tenant())"

/* A stored contact. */
typedef struct OldContact
{
	pg_uuid_t	id;
	Datum		contact;
	bool		live;
	int64		naming;			/* 0 = none */
	int64		policy_version;
	int64		version;
	int64		generation;
	int64		last_modified;
	StrView		modified_by;
	HeapTuple	tuple;
	bool		kept;			/* still has records */
} OldContact;

/* What is written. */
typedef struct Changes
{
	MemoryContext context;		/* of the batch; each contact is worked on in a scratch one */
	MemoryContext scratch;
	const char *cause;
	int64		policy_version;
	StoreRows	added;
	StoreRows	changed;
	StoreArray	gone;
	StoreAudit	audit;
	StoreArray	conflict_contact;
	StoreArray	conflict_field;
	StoreArray	conflict_element;
	StoreArray	conflict_reason;
	StoreArray	conflict_open;
	StoreArray	conflict_candidates;
	StoreArray	conflict_seen;
	StoreArray	conflict_decision;
} Changes;

static StrView
cview(const char *s)
{
	StrView		v;

	v.ptr = s;
	v.len = strlen(s);
	return v;
}

static void
append_name(StringInfo buf, const char *member, StrView name)
{
	appendStringInfo(buf, ", \"%s\": ", member);
	escape_json(buf, TextDatumGetCString(PointerGetDatum(cstring_to_text_with_len(name.ptr ? name.ptr : "", name.len))));
}

/* The claims of a conflict's candidates, numbered from 1. */
char *
store_candidates_json(const MergeConflict *conflict, const MergeInput *inputs)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '[');
	for (int i = 0; i < conflict->ncandidates; i++)
	{
		const MergeCandidate *c = &conflict->candidates[i];
		ContactValue v = {0};

		v.nitems = conflict->claims[i].nitems;
		v.items = palloc(sizeof(ContactItem) * v.nitems);
		for (int k = 0; k < v.nitems; k++)
			v.items[k] = *conflict->claims[i].items[k];
		appendStringInfo(&buf, "%s{\"candidate\": %d, \"value\": ", i ? ", " : "", i + 1);
		contact_to_json(&buf, &v, false);
		if (c->input < 0)
			appendStringInfo(&buf, ", \"source\": \"decision\", \"decision\": " INT64_FORMAT, c->decision_id);
		else
		{
			append_name(&buf, "source", inputs[c->input].source);
			append_name(&buf, "source_id", inputs[c->input].source_id);
		}
		if (c->displaced)
			appendStringInfoString(&buf, ", \"displaced\": true");
		appendStringInfo(&buf, ", \"changed_at\": \"%s\", \"estimate\": %s, \"digest\": \"",
						 timestamptz_to_str(c->changed_at), c->estimate ? "true" : "false");
		for (int k = 0; k < MERGE_DIGEST_LEN; k++)
			appendStringInfo(&buf, "%02x", c->digest[k]);
		appendStringInfoString(&buf, "\"}");
	}
	appendStringInfoChar(&buf, ']');
	return buf.data;
}

const char *
store_conflict_field(const MergeConflict *conflict)
{
	return pnstrdup(conflict->name.ptr, conflict->name.len);
}

char *
store_seen_text(const MergeConflict *conflict)
{
	char	   *seen = palloc(2 * MERGE_DIGEST_LEN + 1);

	for (int k = 0; k < MERGE_DIGEST_LEN; k++)
		sprintf(seen + 2 * k, "%02x", conflict->digest[k]);
	return seen;
}

static void
add_conflicts(Changes *c, pg_uuid_t *id, const MergeResult *result, const MergeInput *inputs)
{
	MemoryContext scratch = MemoryContextSwitchTo(c->context);

	for (int i = 0; i < result->nconflicts; i++)
	{
		const MergeConflict *conflict = &result->conflicts[i];
		StrView		element = conflict->key.ptr ? conflict->key : cview("");

		store_array_add(&c->conflict_contact, UUIDPGetDatum(id), false);
		store_array_add_text(&c->conflict_field, cview(store_conflict_field(conflict)));
		store_array_add_text(&c->conflict_element, element);
		store_array_add_text(&c->conflict_reason, cview(merge_reason_names[conflict->reason]));
		store_array_add(&c->conflict_open, BoolGetDatum(conflict->open), false);
		store_array_add_text(&c->conflict_candidates, cview(store_candidates_json(conflict, inputs)));
		store_array_add_text(&c->conflict_seen, cview(store_seen_text(conflict)));
		store_array_add(&c->conflict_decision, Int64GetDatum(conflict->decision_id), conflict->decision_id == 0);
	}
	MemoryContextSwitchTo(scratch);
}

void
store_input(const StoreRecord *r, MergeInput *in)
{
	memset(in, 0, sizeof(*in));
	in->record_id = r->id;
	in->source = r->source;
	in->source_class = r->source_class;
	in->source_id = r->source_id;
	in->record = r->m;
	for (int i = 0; i < r->m.state.nitems; i++)
		if (r->m.state.items[i].stamp < 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the stored state of record " INT64_FORMAT " has values without stamps", r->id),
					 errhint("contactsync.rebuild(false) computes it anew.")));
}

int
store_inputs(StoreRecord **records, int n, int from, pg_uuid_t *contact, MergeInput **inputs, int *ninputs)
{
	int			to = from;

	*contact = records[from]->contact_id;
	while (to < n && memcmp(contact, &records[to]->contact_id, UUID_LEN) == 0)
		to++;
	*ninputs = to - from;
	*inputs = palloc(sizeof(MergeInput) * *ninputs);
	for (int i = from; i < to; i++)
	{
		store_deform_state(records[i]);
		store_input(records[i], &(*inputs)[i - from]);
	}
	return to;
}

void
store_add_history(const MergePolicy *policy, MergeInput *inputs, int ninputs)
{
	StoreArray	ids;
	StoreHistories h;

	store_array_init(&ids, INT8OID);
	for (int i = 0; i < ninputs; i++)
		store_array_add(&ids, Int64GetDatum(inputs[i].record_id), false);
	h = store_load_histories(&ids);
	for (int k = 0; k < h.n; k++)
		for (int i = 0; i < ninputs; i++)
			if (inputs[i].record_id == h.histories[k].record_id)
				merge_history(policy, h.histories[k].observations, h.histories[k].n, inputs[i].record.sightings, inputs[i].source,
							  &inputs[i].runs, &inputs[i].nruns);
}

/* The decisions in force about any of these records, with the records each is about. */
void
store_decisions(const MergePolicy *policy, StoreArray *record_ids, MergeDecision **decisions, int *ndecisions, int64 ***members)
{
	static const char *const columns[] = {"decision_id"};
	StoreArray	records = store_distinct(record_ids);
	StoreFound *found = store_find("decision_records", "decision_records_pkey", columns, lengthof(columns),
								   1, (StoreArray *[]) {&records});
	StoreArray	ids;
	uint64		n = 0;

	store_array_init(&ids, INT8OID);
	for (int64 i = 0; i < found->n; i++)
	{
		store_found_row(found, i);
		store_array_add(&ids, Int64GetDatum(store_found_int8(found, 0)), false);
	}
	ids = store_distinct(&ids);
	if (ids.n > 0)
		n = store_run("SELECT d.id, d.field, d.element, d.value, d.chosen, d.seen, d.decided_at, d.records, d.kind, d.target FROM "
					  STORE_EACH_ROW(1, "decisions", "id", "d")
					  "WHERE d.kind IN ('resolve', 'override', 'release') AND d.undone_by IS NULL",
					  1, (StoreArray *[]) {&ids});
	*decisions = palloc0(sizeof(MergeDecision) * Max(n, 1));
	*members = palloc0(sizeof(int64 *) * Max(n, 1));
	*ndecisions = n;
	for (uint64 row = 0; row < n; row++)
	{
		MergeDecision *d = &(*decisions)[row];
		ContactClaims claims = {0};
		ContactError error;
		StrView		kind = store_text(row, 9);
		Datum	   *values;
		bool	   *nulls;
		bool		isnull;
		Datum		datum;
		int			k;

		d->id = store_int8(row, 1);
		d->kind = strview_same(kind, cview("resolve")) ? MD_RESOLVE :
			strview_same(kind, cview("release")) ? MD_RELEASE : MD_OVERRIDE;
		datum = store_value(row, 4, &isnull);
		if (isnull)
			d->cleared = true;
		else if (!contact_claims_from_jsonb(DatumGetJsonbP(datum), false, &claims, &error))
			elog(ERROR, "stored decision " INT64_FORMAT " is invalid", d->id);
		d->nitems = claims.value.nitems;
		d->items = claims.value.items;
		if (!merge_decision_cell(policy, store_text(row, 2), store_text(row, 3), d))
			elog(DEBUG1, "decision " INT64_FORMAT " is about a group that is gone", d->id);
		d->chosen_source = store_text(row, 5);
		datum = store_value(row, 6, &isnull);
		if (!isnull)
		{
			deconstruct_array(DatumGetArrayTypeP(datum), BYTEAOID, -1, false, TYPALIGN_INT, &values, &nulls, &d->nseen);
			d->seen = palloc0(MERGE_DIGEST_LEN * Max(d->nseen, 1));
			for (k = 0; k < d->nseen; k++)
			{
				bytea	   *b = DatumGetByteaPP(values[k]);

				memcpy(d->seen[k], VARDATA_ANY(b), Min(VARSIZE_ANY_EXHDR(b), MERGE_DIGEST_LEN));
			}
		}
		d->decided_at = store_time(row, 7);
		datum = store_value(row, 8, &isnull);
		deconstruct_array(DatumGetArrayTypeP(datum), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values, &nulls, &k);
		(*members)[row] = palloc0(sizeof(int64) * (k + 1));
		for (int i = 0; i < k; i++)
			(*members)[row][i] = DatumGetInt64(values[i]);
		d->records = (*members)[row];
		d->target = store_int8(row, 10);
	}
}

void
store_resolve_one(const MergePolicy *policy, MergeInput *inputs, int ninputs,
				  MergeDecision *decisions, int ndecisions, int64 **members, MergeResult *result)
{
	MergeDecision *mine = palloc(sizeof(MergeDecision) * Max(ndecisions, 1));
	int			nmine = 0;

	for (int d = 0; d < ndecisions; d++)
	{
		bool		about = false;

		for (int64 *m = members[d]; *m && !about; m++)
			for (int i = 0; i < ninputs; i++)
				about |= inputs[i].record_id == *m;
		if (about)
			mine[nmine++] = decisions[d];
	}
	merge_resolve(policy, inputs, ninputs, mine, nmine, false, result);
	if (!result->needs_history)
		return;
	store_add_history(policy, inputs, ninputs);
	merge_resolve(policy, inputs, ninputs, mine, nmine, false, result);
}

static void
changes_init(Changes *c, const char *cause, const MergePolicy *policy)
{
	static const StoreColumn columns[] = {
		{"id", UUIDOID}, {"contact", InvalidOid}, {"live", BOOLOID}, {"naming_record", INT8OID}, {"policy_version", INT8OID},
		{"version", INT8OID}, {"generation", INT8OID}, {"last_modified", TIMESTAMPTZOID}, {"modified_by", TEXTOID}
	};

	c->context = CurrentMemoryContext;
	c->scratch = AllocSetContextCreate(CurrentMemoryContext, "contactsync contact", ALLOCSET_DEFAULT_SIZES);
	c->cause = cause;
	c->policy_version = policy->version;
	store_rows_for(&c->added, "contacts", columns, lengthof(columns));
	store_rows_over(&c->changed, "contacts", columns, lengthof(columns));
	store_audit_init(&c->audit);
	store_array_init(&c->gone, UUIDOID);
	store_array_init(&c->conflict_contact, UUIDOID);
	store_array_init(&c->conflict_field, TEXTOID);
	store_array_init(&c->conflict_element, TEXTOID);
	store_array_init(&c->conflict_reason, TEXTOID);
	store_array_init(&c->conflict_open, BOOLOID);
	store_array_init(&c->conflict_candidates, TEXTOID);
	store_array_init(&c->conflict_seen, TEXTOID);
	store_array_init(&c->conflict_decision, INT8OID);
}

/* An id whose record is gone, or has become somebody else's: see contact_aliases.reused_at. */
#define AND_LEADS_NOWHERE(id_) \
	"AND EXISTS (SELECT FROM contactsync.contact_aliases a LEFT JOIN contactsync.records r " \
	"ON r.tenant_id = contactsync.current_tenant() AND r.id = a.record_id " \
	"WHERE a.tenant_id = contactsync.current_tenant() AND a.id = " id_ " AND (r.id IS NULL OR a.reused_at IS DISTINCT FROM r.reused_at))"

/* Of conflicts c that a statement changed: is there a question now, is it answered, and was there one before? */
#define RETURNING_STATES \
	"RETURNING c.state IN ('open', 'assigned') AS open, c.state = 'resolved' AS resolved, " \
	"coalesce((SELECT o.state IN ('open', 'assigned') FROM contactsync.conflicts o " \
	"WHERE o.tenant_id = contactsync.current_tenant() AND o.id = c.id), false) AS was_open"

static void
count_conflicts(void)
{
	StatsPending *pending = stats_of_tenant();

	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		isnull;
		bool		open = DatumGetBool(store_value(row, 1, &isnull));
		bool		resolved = DatumGetBool(store_value(row, 2, &isnull));
		bool		was_open = DatumGetBool(store_value(row, 3, &isnull));

		if (open != was_open)
			stats_add(pending, open ? SC_CONFLICTS_OPENED : resolved ? SC_CONFLICTS_RESOLVED : SC_CONFLICTS_SUPERSEDED, 1);
	}
}

/* Those of the contacts that have conflicts. */
static StoreArray
having_conflicts(const StoreArray *contacts)
{
	static const char *const columns[] = {"contact_id"};
	StoreArray	distinct = store_distinct(contacts);
	StoreArray	result;
	StoreFound *found = store_find_one("conflicts", "conflicts_tenant_id_contact_id_field_element_key", columns, lengthof(columns),
									   1, (StoreArray *[]) {&distinct});

	store_array_init(&result, UUIDOID);
	for (int64 i = 0; i < found->n; i++)
		store_array_add(&result, distinct.values[found->which[i]], false);
	return result;
}

static void
write_changes(Changes *c, StoreArray *contacts)
{
	StoreArray	asked;

	if (c->gone.n > 0)
	{
		StoreArray	version;

		/* where all it had was a record that is gone or somebody else's now, the id leads nowhere: that it is dead stays known */
		store_array_init(&version, INT8OID);
		store_array_add(&version, Int64GetDatum(c->policy_version), false);
		store_run("UPDATE contactsync.contacts c SET live = false, contact = '{}', naming_record = NULL, policy_version = ($2)[1], "
				  "version = c.version + c.live::pg_catalog.int4, "
				  "generation = CASE WHEN c.live THEN " GENERATION " ELSE c.generation END, "
				  "last_modified = CASE WHEN c.live THEN pg_catalog.clock_timestamp() ELSE c.last_modified END, "
				  "modified_by = CASE WHEN c.live THEN (SELECT contactsync._caller()) ELSE c.modified_by END "
				  "FROM " STORE_EACH(1) "WHERE c.tenant_id = contactsync.current_tenant() AND c.id = u.x " AND_LEADS_NOWHERE("u.x"),
				  2, (StoreArray *[]) {&c->gone, &version});
		store_run("DELETE FROM contactsync.contacts c USING " STORE_EACH(1)
				  "WHERE c.tenant_id = contactsync.current_tenant() AND c.id = u.x AND NOT (true " AND_LEADS_NOWHERE("u.x") ")",
				  1, (StoreArray *[]) {&c->gone});
		store_run("INSERT INTO contactsync.contact_events (generation, event, contact_id, other_id) "
				  "SELECT " GENERATION ", 'merged', a.id, r.contact_id FROM " STORE_EACH_ROW(1, "contact_aliases", "id", "a")
				  "JOIN contactsync.records r ON r.tenant_id = contactsync.current_tenant() AND r.id = a.record_id "
				  "AND r.reused_at IS NOT DISTINCT FROM a.reused_at", 1, (StoreArray *[]) {&c->gone});
	}
	store_write(&c->added);
	store_write(&c->changed);

	if (c->conflict_contact.n > 0)
	{
		store_run("INSERT INTO contactsync.conflicts AS c (contact_id, field, element, reason, state, candidates, seen, decision_id) "
				  "SELECT u.contact_id, u.field, u.element, u.reason, CASE WHEN u.open THEN 'open' ELSE 'resolved' END, "
				  "u.candidates::pg_catalog.jsonb, u.seen, u.decision_id "
				  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), "
				  "pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8)) "
				  "AS u (contact_id, field, element, open, candidates, seen, decision_id, reason) "
				  "ON CONFLICT (tenant_id, contact_id, field, element) DO UPDATE SET state = CASE "
				  "WHEN excluded.state = 'open' AND c.assignee IS NOT NULL THEN 'assigned' ELSE excluded.state END, reason = excluded.reason, "
				  "candidates = excluded.candidates, seen = excluded.seen, decision_id = excluded.decision_id, "
				  "opened_at = CASE WHEN excluded.state = 'open' AND c.state NOT IN ('open', 'assigned') THEN excluded.opened_at ELSE c.opened_at END, "
				  "changed_at = excluded.changed_at "
				  "WHERE (c.state = 'resolved') <> (excluded.state = 'resolved') OR c.state = 'superseded' OR c.seen <> excluded.seen OR c.candidates <> excluded.candidates "
				  "OR c.decision_id IS DISTINCT FROM excluded.decision_id OR c.reason <> excluded.reason "
				  RETURNING_STATES,
				  8, (StoreArray *[]) {&c->conflict_contact, &c->conflict_field, &c->conflict_element,
				  &c->conflict_open, &c->conflict_candidates, &c->conflict_seen, &c->conflict_decision,
				  &c->conflict_reason});
		count_conflicts();
	}
	asked = having_conflicts(contacts);
	if (asked.n > 0)
	{
		store_run("UPDATE contactsync.conflicts c SET state = 'superseded', changed_at = pg_catalog.clock_timestamp() "
			  "FROM " STORE_EACH(1)
			  "WHERE c.tenant_id = contactsync.current_tenant() AND c.contact_id = u.x AND c.state <> 'superseded' "
			  "AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) "
			  "AS k (contact_id, field, element) "
			  "WHERE k.contact_id = c.contact_id AND k.field = c.field AND k.element = c.element) " RETURNING_STATES,
			  4, (StoreArray *[]) {&asked, &c->conflict_contact, &c->conflict_field, &c->conflict_element});
		count_conflicts();
	}

	store_audit_write(&c->audit);
}

static int
old_cmp(const void *a, const void *b)
{
	return memcmp(&((const OldContact *) a)->id, &((const OldContact *) b)->id, UUID_LEN);
}

static void
count_resolved(const MergeResult *result)
{
	StatsPending *pending = stats_of_tenant();

	StaticAssertStmt(SC_DISAGREEMENTS + MR_UNION == SC_DISAGREEMENTS_LAST, "rules are counted in their order");
	stats_add(pending, SC_CONTACTS_RESOLVED, 1);
	for (int k = 0; k < MR_COUNT; k++)
		stats_add(pending, SC_DISAGREEMENTS + k, result->disagreements[k]);
}

static bool
same_bytes(const Contact *a, const Contact *b)
{
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

/* Compare a resolved contact with what is stored, and note what is to be written. */
static void
add_contact(Changes *c, pg_uuid_t *id, const MergeResult *result, const MergeInput *inputs,
			OldContact *old, int64 cause_id)
{
	Contact    *contact = contact_form(&result->contact);
	Jsonb	   *changed;
	bool		differs;
	bool		told;
	ContactValue before = {0};
	int64		naming = result->naming_input >= 0 ? inputs[result->naming_input].record_id : 0;
	StoreRows  *rows = old ? &c->changed : &c->added;

	if (old)
	{
		old->kept = true;
		contact_deform((Contact *) DatumGetPointer(old->contact), &before);
	}
	changed = contact_diff_jsonb(old && old->live ? &before : NULL, result->live ? &result->contact : NULL, &differs);
	/* what only its provenance says is no change that anybody is told of */
	told = !old || old->live != result->live || contact_value_cmp(&before, &result->contact) != 0;
	if (told || old->naming != naming || old->policy_version != c->policy_version ||
		!same_bytes((Contact *) DatumGetPointer(old->contact), contact))
	{
		rows->old = old ? old->tuple : NULL;
		store_put(rows, UUIDPGetDatum(id));
		store_put(rows, PointerGetDatum(contact));
		store_put(rows, BoolGetDatum(result->live));
		if (naming != 0)
			store_put(rows, Int64GetDatum(naming));
		else
			store_put_null(rows);
		store_put(rows, Int64GetDatum(c->policy_version));
		store_put(rows, Int64GetDatum(!old ? 1 : old->version + (told ? 1 : 0)));
		store_put(rows, Int64GetDatum(told ? c->audit.generation : old->generation));
		store_put_time(rows, told ? c->audit.now : old->last_modified);
		store_put_text(rows, told ? c->audit.caller : old->modified_by);
	}
	if (differs || (old ? old->live : false) != result->live)
		store_audit_add(&c->audit, c->cause, cause_id,
						!old || !old->live ? "insert" : result->live ? "update" : "delete", id, changed);
	add_conflicts(c, id, result, inputs);
	if (strcmp(c->cause, "event") == 0)
		count_resolved(result);
}

/* The last event that touched a contact. */
typedef struct Cause
{
	pg_uuid_t	contact;
	int64		id;
} Cause;

static int
cause_cmp(const void *a, const void *b)
{
	return memcmp(&((const Cause *) a)->contact, &((const Cause *) b)->contact, UUID_LEN);
}

/* One for each contact that has any, sorted. */
static Cause *
load_causes(const StoreArray *contacts, const StoreArray *ids, int *ncauses)
{
	int			n = ids ? ids->n : 0;
	Cause	   *causes = palloc(sizeof(Cause) * Max(n, 1));
	int			k = 0;
	int			last = -1;

	for (int i = 0; i < n; i++)
	{
		if (ids->nulls[i])
			continue;
		causes[k].contact = *DatumGetUUIDP(contacts->values[i]);
		causes[k++].id = DatumGetInt64(ids->values[i]);
	}
	qsort(causes, k, sizeof(Cause), cause_cmp);
	for (int i = 0; i < k; i++)
	{
		if (last >= 0 && cause_cmp(&causes[last], &causes[i]) == 0)
			causes[last].id = Max(causes[last].id, causes[i].id);
		else
			causes[++last] = causes[i];
	}
	*ncauses = last + 1;
	return causes;
}

/* The contact of a record that is alone: there was none before, and nothing was decided. */
static void
resolve_alone(Changes *c, const MergePolicy *policy, StoreRecord *r)
{
	MergeInput	input;
	MergeResult result;

	store_input(r, &input);
	store_resolve_one(policy, &input, 1, NULL, 0, NULL, &result);
	add_contact(c, &r->contact_id, &result, &input, NULL, r->cause_id);
}

/* Contacts from what is stored of them. */
static void
resolve_stored(Changes *c, const MergePolicy *policy, StoreArray *contacts, StoreArray *cause_ids)
{
	static const char *const columns[] = {"id", "contact", "live", "naming_record", "policy_version", "version", "generation",
	"last_modified", "modified_by"};
	StoreArray	distinct;
	StoreFound *found;
	OldContact *old;
	Cause	   *causes;
	int			ncauses;
	StoreArray	records;
	MergeDecision *decisions;
	int64	  **members;
	int			ndecisions;
	StoreRecord **rows;
	pg_uuid_t  *id;
	int64		nold;
	int			nrows;

	distinct = store_distinct(contacts);
	found = store_find("contacts", "contacts_pkey", columns, lengthof(columns), 1, (StoreArray *[]) {&distinct});
	nold = found->n;
	old = palloc0(sizeof(OldContact) * Max(nold, 1));
	for (int64 i = 0; i < nold; i++)
	{
		bool		isnull;

		store_found_row(found, i);
		old[i].tuple = found->tuples[i];
		old[i].id = *DatumGetUUIDP(store_found_value(found, 0, &isnull));
		old[i].contact = PointerGetDatum(DatumGetContactP(store_found_value(found, 1, &isnull)));
		old[i].live = store_found_bool(found, 2);
		old[i].naming = store_found_int8(found, 3);
		old[i].policy_version = store_found_int8(found, 4);
		old[i].version = store_found_int8(found, 5);
		old[i].generation = store_found_int8(found, 6);
		old[i].last_modified = store_found_time(found, 7);
		old[i].modified_by = store_found_text(found, 8);
	}
	qsort(old, nold, sizeof(OldContact), old_cmp);
	causes = load_causes(contacts, cause_ids, &ncauses);

	rows = store_records_by_contact(contacts, &nrows);
	store_array_init(&records, INT8OID);
	for (int i = 0; i < nrows; i++)
		store_array_add(&records, Int64GetDatum(rows[i]->id), false);
	store_decisions(policy, &records, &decisions, &ndecisions, &members);

	MemoryContextSwitchTo(c->scratch);
	for (int row = 0; row < nrows;)
	{
		MergeInput *inputs;
		int			ninputs;
		MergeResult result;
		OldContact	probe;
		Cause		key;
		const Cause *cause;

		CHECK_FOR_INTERRUPTS();
		row = store_inputs(rows, nrows, row, &probe.id, &inputs, &ninputs);
		store_resolve_one(policy, inputs, ninputs, decisions, ndecisions, members, &result);
		key.contact = probe.id;
		cause = bsearch(&key, causes, ncauses, sizeof(Cause), cause_cmp);
		id = MemoryContextAlloc(c->context, sizeof(pg_uuid_t));
		*id = probe.id;
		add_contact(c, id, &result, inputs,
					bsearch(&probe, old, nold, sizeof(OldContact), old_cmp), cause ? cause->id : 0);
		MemoryContextReset(c->scratch);
	}
	for (int64 i = 0; i < nold; i++)
	{
		ContactValue before;
		bool		differs;
		Cause		key;
		const Cause *cause;

		if (old[i].kept)
			continue;
		store_array_add(&c->gone, UUIDPGetDatum(&old[i].id), false);
		if (!old[i].live)
			continue;
		contact_deform(DatumGetContactP(old[i].contact), &before);
		key.contact = old[i].id;
		cause = bsearch(&key, causes, ncauses, sizeof(Cause), cause_cmp);
		store_audit_add(&c->audit, c->cause, cause ? cause->id : 0, "merge", &old[i].id,
						contact_diff_jsonb(&before, NULL, &differs));
		MemoryContextReset(c->scratch);
	}
	MemoryContextSwitchTo(c->context);
}

/* The last policy by which contacts were resolved, and in which transaction. */
static struct
{
	FullTransactionId transaction;
	int64		version;
}			used;

/*
 * _policy_used(version bigint) -> boolean
 *		Has this transaction resolved contacts by it, or tried to?
 */
Datum
store_policy_used_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(FullTransactionIdEquals(used.transaction, GetTopFullTransactionIdIfAny()) &&
				   used.version >= PG_GETARG_INT64(0));
}

static void
resolve(StoreArray *contacts, const char *cause, StoreArray *causes, StoreRecord *records, int nrecords)
{
	MergePolicy policy;
	Changes		c;
	bool		any = contacts->n > 0;

	for (int i = 0; i < nrecords && !any; i++)
		any = records[i].alone;
	if (!any)
		return;
	store_policy(&policy);
	used.transaction = GetTopFullTransactionId();
	used.version = policy.version;
	changes_init(&c, cause, &policy);
	if (contacts->n > 0)
		resolve_stored(&c, &policy, contacts, causes);
	for (int i = 0; i < nrecords; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!records[i].alone)
			continue;
		MemoryContextSwitchTo(c.scratch);
		resolve_alone(&c, &policy, &records[i]);
		MemoryContextSwitchTo(c.context);
		MemoryContextReset(c.scratch);
	}
	write_changes(&c, contacts);
}

void
store_resolve(StoreArray *contacts, const char *cause, StoreArray *causes)
{
	resolve(contacts, cause, causes, NULL, 0);
}

void
store_resolve_batch(StoreArray *contacts, StoreArray *causes, StoreRecord *records, int nrecords)
{
	resolve(contacts, "event", causes, records, nrecords);
}
