/*
 * store_record.c
 *		Records and their observations, from rows and to rows.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "store/store.h"

/* What is read of records. */
static const char *const columns[] = {
	"id", "source", "source_id", "contact_id", "alive", "zombie", "created", "deleted_at", "version", "source_modified",
	"seen_at", "gone_at", "last_effective", "last_raw", "last_seq", "last_digest", "same_version_conflicts", "names",
	"state", "covered", "uncovered", "merged_into", "cleared", "reused_at", "horizon"
};

enum
{
	R_ID, R_SOURCE, R_SOURCE_ID, R_CONTACT_ID, R_ALIVE, R_ZOMBIE, R_CREATED, R_DELETED_AT, R_VERSION, R_SOURCE_MODIFIED,
	R_SEEN_AT, R_GONE_AT, R_LAST_EFFECTIVE, R_LAST_RAW, R_LAST_SEQ, R_LAST_DIGEST, R_SAME_VERSION_CONFLICTS, R_NAMES,
	R_STATE, R_COVERED, R_UNCOVERED, R_MERGED_INTO, R_CLEARED, R_REUSED_AT, R_HORIZON
};

static void
get_digest(const StoreFound *f, int column, uint8 *digest)
{
	StrView		s = store_found_text(f, column);

	memset(digest, 0, MERGE_DIGEST_LEN);
	if (s.len == MERGE_DIGEST_LEN)
		memcpy(digest, s.ptr, MERGE_DIGEST_LEN);
}

static void
read_coverage(const StoreFound *f, int column, MergeCoverage *coverage)
{
	ContactClaims claims = {0};
	bool		isnull;
	Datum		d = store_found_value(f, column, &isnull);

	if (!isnull)
		store_covers_parse(d, &claims);
	coverage->fields = claims.covers;
	coverage->elements = claims.elements;
	coverage->nelements = claims.nelements;
}

/* All but names, coverage and the state, which most records need not be read for. */
static void
read_head(StoreFound *f, int64 row, StoreRecord *r)
{
	bool		isnull;
	Datum		d;

	memset(r, 0, sizeof(*r));
	r->found = f;
	r->tuple = f->tuples[row];
	store_found_row(f, row);
	r->id = store_found_int8(f, R_ID);
	r->source = store_found_text(f, R_SOURCE);
	r->source_id = store_found_text(f, R_SOURCE_ID);
	d = store_found_value(f, R_CONTACT_ID, &isnull);
	r->has_contact = !isnull;
	if (!isnull)
		r->contact_id = *DatumGetUUIDP(d);
	r->was_alive = r->m.alive = store_found_bool(f, R_ALIVE);
	r->m.zombie = store_found_bool(f, R_ZOMBIE);
	r->m.created = store_found_time(f, R_CREATED);
	r->m.deleted_at = store_found_time(f, R_DELETED_AT);
	r->m.version = store_found_time(f, R_VERSION);
	r->m.modified = store_found_time(f, R_SOURCE_MODIFIED);
	r->m.sightings.seen_at = store_found_time(f, R_SEEN_AT);
	r->m.sightings.gone_at = store_found_time(f, R_GONE_AT);
	r->m.last.effective = store_found_time(f, R_LAST_EFFECTIVE);
	r->m.last.raw = store_found_time(f, R_LAST_RAW);
	r->m.last.seq = store_found_int8(f, R_LAST_SEQ);
	get_digest(f, R_LAST_DIGEST, r->m.last.digest);
	r->m.same_version_conflicts = DatumGetInt32(store_found_value(f, R_SAME_VERSION_CONFLICTS, &isnull));
	r->was_merged_into = r->m.merged_into = store_found_text(f, R_MERGED_INTO);
	r->was_reused = r->m.reused.effective = store_found_time(f, R_REUSED_AT);
	r->horizon = store_found_time(f, R_HORIZON);
}

/* The rest, of the row that was looked at last. */
static void
read_rest(const StoreFound *f, StoreRecord *r)
{
	bool		isnull;
	Datum		d = store_found_value(f, R_NAMES, &isnull);

	r->names = store_texts(d, &r->nnames);
	d = store_found_value(f, R_STATE, &isnull);
	if (!isnull)
		r->stored_state = DatumGetContactP(d);
	read_coverage(f, R_COVERED, &r->m.covered);
	read_coverage(f, R_UNCOVERED, &r->m.uncovered);
	d = store_found_value(f, R_CLEARED, &isnull);
	if (!isnull)
		r->stored_cleared = DatumGetContactP(d);
}

void
store_read_rest(StoreRecord *r)
{
	heap_deform_tuple(r->tuple, r->found->desc, r->found->values, r->found->nulls);
	read_rest(r->found, r);
	store_deform_state(r);
}

void
store_deform_state(StoreRecord *r)
{
	if (r->stored_state)
		contact_deform(r->stored_state, &r->m.state);
	if (r->stored_cleared)
		contact_deform(r->stored_cleared, &r->m.cleared);
}

static int
source_cmp(const void *a, const void *b)
{
	return strview_cmp(((const StoreSource *) a)->name, ((const StoreSource *) b)->name);
}

static StrView
copy_text(StrView s)
{
	if (s.ptr)
		s.ptr = pnstrdup(s.ptr, s.len);
	return s;
}

/* What is the source's and not the record's. */
static void
read_sources(StoreRecord *records, int n)
{
	StoreArray	names;
	StoreSource *sources;
	uint64		nsources;

	if (n == 0)
		return;
	store_array_init(&names, TEXTOID);
	for (int i = 0; i < n; i++)
		store_array_add_name(&names, records[i].source);
	nsources = store_run("SELECT s.name, s.class, coalesce(s.settings -> 'duplicates' = 'true', false) FROM contactsync.sources s "
						 "WHERE s.tenant_id = contactsync.current_tenant() AND s.name = ANY ($1)", 1, (StoreArray *[]) {&names});
	sources = palloc(sizeof(StoreSource) * Max(nsources, 1));
	for (uint64 i = 0; i < nsources; i++)
	{
		bool		isnull;

		sources[i].name = store_text(i, 1);
		sources[i].source_class = copy_text(store_text(i, 2));
		sources[i].many_per_source = DatumGetBool(store_value(i, 3, &isnull));
	}
	qsort(sources, nsources, sizeof(StoreSource), source_cmp);
	for (int i = 0; i < n; i++)
	{
		StoreSource probe = {.name = records[i].source};
		const StoreSource *s = bsearch(&probe, sources, nsources, sizeof(StoreSource), source_cmp);

		if (s == NULL)
			elog(ERROR, "source of record " INT64_FORMAT " is missing", records[i].id);
		records[i].source_class = s->source_class;
		records[i].many_per_source = s->many_per_source;
	}
}

void
store_records_by_name(StoreArray *sources, StoreArray *source_ids, StoreRecord *records)
{
	StoreFound *f = store_find("records", "records_tenant_id_source_source_id_key", columns, lengthof(columns),
							   2, (StoreArray *[]) {sources, source_ids});

	for (int64 i = 0; i < f->n; i++)
		read_head(f, i, &records[f->which[i]]);
}

static int
int8_cmp(const void *a, const void *b)
{
	int64		x = DatumGetInt64(*(const Datum *) a);
	int64		y = DatumGetInt64(*(const Datum *) b);

	return x < y ? -1 : x > y;
}

static int
id_datum_cmp(const void *a, const void *b)
{
	return memcmp(DatumGetUUIDP(*(const Datum *) a), DatumGetUUIDP(*(const Datum *) b), UUID_LEN);
}

StoreArray
store_distinct(const StoreArray *a)
{
	int			(*cmp) (const void *, const void *) = a->type == UUIDOID ? id_datum_cmp : int8_cmp;
	StoreArray	result;

	Assert(a->type == UUIDOID || a->type == INT8OID);
	store_array_init(&result, a->type);
	for (int i = 0; i < a->n; i++)
		if (!a->nulls[i])
			store_array_add(&result, a->values[i], false);
	if (result.n > 0)
	{
		int			n = 1;

		qsort(result.values, result.n, sizeof(Datum), cmp);
		for (int i = 1; i < result.n; i++)
			if (cmp(&result.values[n - 1], &result.values[i]) != 0)
				result.values[n++] = result.values[i];
		result.n = n;
	}
	return result;
}

static StoreRecord *
load(const char *index, const StoreArray *keys, int *n)
{
	StoreArray	distinct = store_distinct(keys);
	StoreFound *f = store_find("records", index, columns, lengthof(columns), 1, (StoreArray *[]) {&distinct});
	StoreRecord *records = palloc_extended(sizeof(StoreRecord) * Max(f->n, 1), MCXT_ALLOC_HUGE);

	for (int64 i = 0; i < f->n; i++)
	{
		read_head(f, i, &records[i]);
		read_rest(f, &records[i]);
	}
	read_sources(records, f->n);
	*n = f->n;
	return records;
}

StoreRecord *
store_records_by_id(const StoreArray *ids, int *n)
{
	return load("records_pkey", ids, n);
}

static int
name_cmp(const void *a, const void *b)
{
	const StoreRecord *x = *(StoreRecord *const *) a;
	const StoreRecord *y = *(StoreRecord *const *) b;
	int			r = memcmp(&x->contact_id, &y->contact_id, UUID_LEN);

	if (r)
		return r;
	return (r = strview_cmp(x->source, y->source)) != 0 ? r : strview_cmp(x->source_id, y->source_id);
}

StoreRecord **
store_records_by_contact(const StoreArray *contacts, int *n)
{
	StoreRecord *records = load("records_contact_id_idx", contacts, n);
	StoreRecord **sorted = palloc(sizeof(StoreRecord *) * Max(*n, 1));

	for (int i = 0; i < *n; i++)
		sorted[i] = &records[i];
	qsort(sorted, *n, sizeof(StoreRecord *), name_cmp);
	return sorted;
}

/* ---- records written ---- */

static const StoreColumn record_columns[] = {
	{"id", INT8OID}, {"source", TEXTOID}, {"source_id", TEXTOID}, {"contact_id", UUIDOID},
	{"alive", BOOLOID}, {"zombie", BOOLOID}, {"created", TIMESTAMPTZOID}, {"deleted_at", TIMESTAMPTZOID},
	{"version", TIMESTAMPTZOID}, {"source_modified", TIMESTAMPTZOID}, {"seen_at", TIMESTAMPTZOID},
	{"gone_at", TIMESTAMPTZOID}, {"last_effective", TIMESTAMPTZOID}, {"last_raw", TIMESTAMPTZOID},
	{"last_seq", INT8OID}, {"last_digest", BYTEAOID}, {"same_version_conflicts", INT4OID},
	{"names", TEXTARRAYOID}, {"state", InvalidOid}, {"covered", TEXTARRAYOID}, {"uncovered", TEXTARRAYOID},
	{"cleared", InvalidOid}, {"merged_into", TEXTOID}, {"reused_at", TIMESTAMPTZOID}
};

static const StoreColumn seen_columns[] = {{"id", INT8OID}, {"seen_at", TIMESTAMPTZOID}, {"gone_at", TIMESTAMPTZOID}};

static Datum
names_array(const StoreRecord *r)
{
	Datum	   *names = palloc(sizeof(Datum) * Max(r->nnames, 1));

	for (int i = 0; i < r->nnames; i++)
		names[i] = PointerGetDatum(cstring_to_text_with_len(r->names[i].ptr, r->names[i].len));
	return PointerGetDatum(construct_array(names, r->nnames, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
put_record(StoreRows *rows, StoreRecord *r)
{
	MemoryContext context = MemoryContextSwitchTo(rows->scratch);

	store_put(rows, Int64GetDatum(r->id));
	store_put_text(rows, r->source);
	store_put_text(rows, r->source_id);
	if (r->has_contact)
		store_put(rows, UUIDPGetDatum(&r->contact_id));
	else
		store_put_null(rows);
	store_put(rows, BoolGetDatum(r->m.alive));
	store_put(rows, BoolGetDatum(r->m.zombie));
	store_put_time(rows, r->m.created);
	store_put_time(rows, r->m.deleted_at);
	store_put_time(rows, r->m.version);
	store_put_time(rows, r->m.modified);
	store_put_time(rows, r->m.sightings.seen_at);
	store_put_time(rows, r->m.sightings.gone_at);
	store_put_time(rows, r->m.last.effective);
	store_put_time(rows, r->m.last.raw);
	store_put(rows, Int64GetDatum(r->m.last.seq));
	store_put_bytes(rows, r->m.last.digest, MERGE_DIGEST_LEN);
	store_put(rows, Int32GetDatum(r->m.same_version_conflicts));
	store_put(rows, names_array(r));
	store_put(rows, PointerGetDatum(contact_form(&r->m.state)));
	store_put(rows, store_coverage_array(&r->m.covered));
	store_put(rows, store_coverage_array(&r->m.uncovered));
	if (r->m.cleared.nitems > 0)
		store_put(rows, PointerGetDatum(contact_form(&r->m.cleared)));
	else
		store_put_null(rows);
	store_put_text(rows, r->m.merged_into);
	store_put_time(rows, r->m.reused.effective);
	MemoryContextSwitchTo(context);
}

/* Of each source that has become more or fewer. */
static void
save_counts(const StoreRecord *records, int nrecords)
{
	StoreArray	sources;
	StoreArray	more;

	store_array_init(&sources, TEXTOID);
	store_array_init(&more, INT4OID);
	for (int i = 0; i < nrecords; i++)
	{
		const StoreRecord *r = &records[i];

		if (!(r->fresh || r->changed) || r->m.alive == r->was_alive)
			continue;
		store_array_add_text(&sources, r->source);
		store_array_add(&more, Int32GetDatum(r->m.alive ? 1 : -1), false);
	}
	if (sources.n > 0)
		store_run("INSERT INTO contactsync.source_counts AS c (source, live) "
				  "SELECT u.source, pg_catalog.sum(u.more) FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (source, more) "
				  "GROUP BY u.source HAVING pg_catalog.sum(u.more) <> 0 "
				  "ON CONFLICT (tenant_id, source) DO UPDATE SET live = c.live + excluded.live",
				  2, (StoreArray *[]) {&sources, &more});
}

void
store_save_records(StoreRecord *records, int nrecords)
{
	StoreRows	fresh;
	StoreRows	changed;
	StoreRows	seen;

	store_rows_for(&fresh, "records", record_columns, lengthof(record_columns));
	store_rows_over(&changed, "records", record_columns, lengthof(record_columns));
	store_rows_over(&seen, "records", seen_columns, lengthof(seen_columns));
	for (int i = 0; i < nrecords; i++)
	{
		StoreRecord *r = &records[i];

		changed.old = seen.old = r->tuple;
		if (r->fresh || r->changed)
			put_record(r->fresh ? &fresh : &changed, r);
		else if (r->sighted)
		{
			store_put(&seen, Int64GetDatum(r->id));
			store_put_time(&seen, r->m.sightings.seen_at);
			store_put_time(&seen, r->m.sightings.gone_at);
		}
	}
	store_write(&seen);
	store_write(&fresh);
	store_write(&changed);
	save_counts(records, nrecords);
}

/* ---- observations ---- */

static const char *const observation_columns[] = {
	"record_id", "kind", "inferred", "effective", "version", "seq", "digest", "created", "source_modified", "claims",
	"covers", "merged_into", "base", "origins", "changed", "late"
};

enum
{
	O_RECORD_ID, O_KIND, O_INFERRED, O_EFFECTIVE, O_VERSION, O_SEQ, O_DIGEST, O_CREATED, O_SOURCE_MODIFIED, O_CLAIMS,
	O_COVERS, O_MERGED_INTO, O_BASE, O_ORIGINS, O_CHANGED, O_LATE
};

static void
read_observation(const StoreFound *f, MergeObservation *o)
{
	bool		isnull;
	Datum		d;

	memset(o, 0, sizeof(*o));
	o->kind = store_kind(store_found_text(f, O_KIND));
	o->inferred = store_found_bool(f, O_INFERRED);
	o->effective = store_found_time(f, O_EFFECTIVE);
	o->raw = store_found_time(f, O_VERSION);
	o->seq = store_found_int8(f, O_SEQ);
	get_digest(f, O_DIGEST, o->digest);
	o->created = store_found_time(f, O_CREATED);
	o->modified = store_found_time(f, O_SOURCE_MODIFIED);
	d = store_found_value(f, O_CLAIMS, &isnull);
	if (!isnull)
		contact_deform(DatumGetContactP(d), &o->claims.value);
	d = store_found_value(f, O_COVERS, &isnull);
	if (!isnull)
		store_covers_parse(d, &o->claims);
	o->into = store_found_text(f, O_MERGED_INTO);
	if (o->kind == MK_BASE)
		o->base = store_read_base(store_found_text(f, O_BASE));
	d = store_found_value(f, O_ORIGINS, &isnull);
	if (!isnull)
		store_read_origins(d, o);
	d = store_found_value(f, O_CHANGED, &isnull);
	if (!isnull)
		store_read_changed(d, o);
}

StoreHistories
store_load_histories(const StoreArray *record_ids)
{
	StoreArray	ids = store_distinct(record_ids);
	StoreFound *f = store_find("observations", "observations_pkey", observation_columns, lengthof(observation_columns),
							   1, (StoreArray *[]) {&ids});
	StoreHistories h = {0};

	h.n = 0;
	h.histories = palloc_extended(sizeof(StoreHistory) * Max(ids.n, 1), MCXT_ALLOC_HUGE);
	h.observations = palloc_extended(sizeof(MergeObservation) * Max(f->n, 1), MCXT_ALLOC_HUGE);
	for (int64 i = 0, at = 0; i < f->n; i++)
	{
		int64		id = DatumGetInt64(ids.values[f->which[i]]);

		store_found_row(f, i);
		if (store_found_bool(f, O_LATE))
			continue;
		if (h.n == 0 || h.histories[h.n - 1].record_id != id)
			h.histories[h.n++] = (StoreHistory) {id, 0, &h.observations[at]};
		read_observation(f, &h.observations[at++]);
		h.histories[h.n - 1].n++;
	}
	return h;
}
