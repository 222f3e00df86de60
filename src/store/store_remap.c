/*
 * store_remap.c
 *		remap(): what was said, read by the mapping that is in force now.
 *
 * An observation is a payload and a version; what it claims is computed, by the
 * mapping of its source's connector.  Where that was corrected, the claims of the
 * payloads that are kept are computed anew, and all that follows from them.  So
 * are their digests: a payload that is delivered again is recognised as before.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "store/guard.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_remap_sql);

#define BATCH_RECORDS	"250"
#define MAX_REPORTED	10

typedef struct Remap
{
	StrView		source;
	StrView		after;			/* source_id of the last record of the batch before */
	MemoryContext outer;
	int64		changed;		/* observations */
	int64		kept;			/* whose payload is gone */
	int64		unreadable;
} Remap;

/* An observation with what it claims by the mapping in force. */
typedef struct Remapped
{
	int64		id;
	int64		record;
	int64		received;
	bool		changed;
	bool		repeats;		/* says what another one says, which was received earlier */
	uint8		digest[MERGE_DIGEST_LEN];
	Contact    *claims;
	Datum		covers;
} Remapped;

static int
remapped_cmp(const void *x, const void *y)
{
	const Remapped *a = x;
	const Remapped *b = y;
	int			r;

	if (a->record != b->record)
		return a->record < b->record ? -1 : 1;
	if ((r = memcmp(a->digest, b->digest, MERGE_DIGEST_LEN)) != 0)
		return r;
	if (a->received != b->received)
		return a->received < b->received ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

/* Say that an observation cannot be read by the mapping; it stays as it is. */
static void
report_unreadable(Remap *m, int64 id, const ContactError *error)
{
	if (m->unreadable++ >= MAX_REPORTED)
		return;
	ereport(WARNING,
			(errmsg("observation " INT64_FORMAT " cannot be read by the mapping: %s", id, error->message),
			 errdetail("JSON path: %s", error->path),
			 errhint("It keeps the claims that it had.")));
}

/* Read the observations of some records anew; how many there are. */
static Remapped *
read_observations(Remap *m, StoreArray *records, int *count)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "remap", ALLOCSET_DEFAULT_SIZES);
	StoreArray	sources;
	StoreMapping *mappings;
	const StoreMapping *mapping;
	Remapped   *result;
	int			nmappings;
	uint64		n;

	store_array_init(&sources, TEXTOID);
	store_array_add_text(&sources, m->source);
	mappings = store_load_mappings(&sources, &nmappings);
	mapping = store_find_mapping(mappings, nmappings, m->source);
	n = store_run("SELECT o.record_id, o.kind, o.inferred, o.effective, o.version, o.seq, o.digest, o.created, "
				  "o.source_modified, o.id, o.received_at, o.payload, o.coverage, o.changed FROM "
				  STORE_EACH_ROW(1, "observations", "record_id", "o")
				  /* what we wrote is in our own form */
				  "WHERE o.origins IS NULL ORDER BY o.record_id, o.id",
				  1, (StoreArray *[]) {records});
	result = palloc0(sizeof(Remapped) * Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		Remapped   *r = &result[row];
		MergeObservation o = {0};
		ContactError error = {0};
		StrView		kind = store_text(row, 2);
		StrView		digest = store_text(row, 7);
		bool		isnull;
		bool		nocoverage;
		Datum		payload;
		Datum		coverage = store_value(row, 13, &nocoverage);
		Datum		changed;

		CHECK_FOR_INTERRUPTS();
		r->record = store_int8(row, 1);
		r->id = store_int8(row, 10);
		r->received = store_time(row, 11);
		memcpy(r->digest, digest.ptr, Min(digest.len, MERGE_DIGEST_LEN));
		o.kind = store_kind(kind);
		o.inferred = DatumGetBool(store_value(row, 3, &isnull));
		o.effective = store_time(row, 4);
		o.raw = store_time(row, 5);
		o.seq = store_int8(row, 6);
		o.created = store_time(row, 8);
		o.modified = store_time(row, 9);
		changed = store_value(row, 14, &isnull);
		if (!isnull)
			store_read_changed(changed, &o);
		payload = store_value(row, 12, &isnull);
		if (isnull || o.kind == MK_DELETE)
		{
			/* a delete, or an undelete without content, never had one */
			if (o.kind == MK_SNAPSHOT || o.kind == MK_PATCH || o.kind == MK_BASE)
				m->kept++;
			continue;
		}
		if (!store_read_claims(&o, mapping, &payload, nocoverage ? NULL : &coverage, scratch,
							   &r->claims, &r->covers, &error))
		{
			MemoryContextReset(scratch);
			report_unreadable(m, r->id, &error);
			continue;
		}
		r->changed = memcmp(r->digest, o.digest, MERGE_DIGEST_LEN) != 0;
		memcpy(r->digest, o.digest, MERGE_DIGEST_LEN);
	}
	qsort(result, n, sizeof(Remapped), remapped_cmp);
	for (uint64 i = 1; i < n; i++)
		result[i].repeats = result[i - 1].record == result[i].record &&
			memcmp(result[i - 1].digest, result[i].digest, MERGE_DIGEST_LEN) == 0;
	*count = n;
	return result;
}

static void
save_observations(Remap *m, const Remapped *observations, int n, StoreArray *records)
{
	static const StoreColumn columns[] = {
		{"record_id", INT8OID}, {"id", INT8OID}, {"digest", BYTEAOID}, {"claims", InvalidOid}, {"covers", TEXTARRAYOID}
	};
	StoreRows	rows;
	StoreArray	changed_record;
	StoreArray	changed;
	StoreArray	repeated_record;
	StoreArray	repeated;
	int64		last = 0;

	store_rows_init(&rows, columns, lengthof(columns));
	store_array_init(&changed_record, INT8OID);
	store_array_init(&changed, INT8OID);
	store_array_init(&repeated_record, INT8OID);
	store_array_init(&repeated, INT8OID);
	for (int i = 0; i < n; i++)
	{
		const Remapped *r = &observations[i];

		if (!r->changed && !r->repeats)
			continue;
		m->changed++;
		if (r->record != last)
			store_array_add(records, Int64GetDatum(last = r->record), false);
		if (r->repeats)
		{
			store_array_add(&repeated_record, Int64GetDatum(r->record), false);
			store_array_add(&repeated, Int64GetDatum(r->id), false);
			continue;
		}
		store_array_add(&changed_record, Int64GetDatum(r->record), false);
		store_array_add(&changed, Int64GetDatum(r->id), false);
		store_put(&rows, Int64GetDatum(r->record));
		store_put(&rows, Int64GetDatum(r->id));
		store_put(&rows, PointerGetDatum(cstring_to_text_with_len((const char *) r->digest, MERGE_DIGEST_LEN)));
		store_put(&rows, PointerGetDatum(r->claims));
		store_put(&rows, r->covers);
	}
	if (repeated.n > 0)
		store_run("DELETE FROM contactsync.observations o USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) "
				  "AS u (record_id, id) WHERE o.tenant_id = contactsync.current_tenant() AND o.record_id = u.record_id AND o.id = u.id",
				  2, (StoreArray *[]) {&repeated_record, &repeated});
	if (changed.n == 0)
		return;
	/* one may take the digest that another gives up: out of each other's way first */
	store_run("UPDATE contactsync.observations o SET digest = pg_catalog.int8send(o.id) "
			  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (record_id, id) "
			  "WHERE o.tenant_id = contactsync.current_tenant() AND o.record_id = u.record_id AND o.id = u.id",
			  2, (StoreArray *[]) {&changed_record, &changed});
	store_run_rows("UPDATE contactsync.observations o SET digest = u.digest, claims = u.claims, covers = u.covers "
				   "FROM u WHERE o.tenant_id = contactsync.current_tenant() AND o.record_id = u.record_id AND o.id = u.id", &rows);
}

/* The next records of the source; false if there are none. */
static bool
remap_batch(Remap *m)
{
	StoreArray	from;
	StoreArray	records;
	StoreArray	changed;
	Remapped   *observations;
	int			n;
	uint64		nrecords;
	StrView		last;

	store_array_init(&from, TEXTOID);
	store_array_add_text(&from, m->source);
	store_array_add_text(&from, m->after);
	store_array_init(&records, INT8OID);
	store_array_init(&changed, INT8OID);
	nrecords = store_run("SELECT r.id, r.source_id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() "
						 "AND r.source = ($1)[1] AND r.source_id > coalesce(($1)[2], '') ORDER BY r.source_id LIMIT " BATCH_RECORDS,
						 1, (StoreArray *[]) {&from});
	if (nrecords == 0)
		return false;
	for (uint64 i = 0; i < nrecords; i++)
		store_array_add(&records, Int64GetDatum(store_int8(i, 1)), false);
	last = store_text(nrecords - 1, 2);
	m->after = strview(memcpy(MemoryContextAlloc(m->outer, last.len + 1), last.ptr, last.len), last.len);

	observations = read_observations(m, &records, &n);
	save_observations(m, observations, n, &changed);
	if (changed.n > 0)
	{
		StoreRecord *folded;
		StoreArray	contacts;
		StoreArray	causes;

		store_array_init(&contacts, UUIDOID);
		store_array_init(&causes, INT8OID);
		store_refold(&changed, 0, true, &folded, &n);
		store_link(folded, n, &contacts, &causes);
		for (int i = 0; i < n; i++)
			if (folded[i].has_contact)
				store_array_add(&contacts, UUIDPGetDatum(&folded[i].contact_id), false);
		store_resolve(&contacts, "remap", NULL);
	}
	return true;
}

/* Error 42704 if there is no such source. */
static void
require_source(text *source)
{
	StoreArray	name;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&name, TEXTOID);
	store_array_add(&name, PointerGetDatum(source), false);
	store_run("SELECT contactsync._require_source(($1)[1])", 1, (StoreArray *[]) {&name});
	SPI_finish();
}

/*
 * _remap(source text) -> bigint
 *		Inside the guard; the number of observations that claim something else now.
 */
Datum
store_remap_sql(PG_FUNCTION_ARGS)
{
	Remap		m = {0};
	text	   *source = PG_GETARG_TEXT_PP(0);
	bool		more;

	guard_require_active();
	guard_lock_tenant();
	require_source(source);
	store_fix_plans();
	m.source = strview(VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source));
	m.after = strview_of("");
	m.outer = CurrentMemoryContext;
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		more = remap_batch(&m);
		SPI_finish();
	} while (more);
	if (m.unreadable > MAX_REPORTED)
		ereport(WARNING,
				(errmsg(INT64_FORMAT " observations in all cannot be read by the mapping", m.unreadable),
				 errhint("They keep the claims that they had.")));
	if (m.kept > 0)
		ereport(NOTICE,
				(errmsg("observations without a payload keep what they claim: " INT64_FORMAT, m.kept)));
	PG_RETURN_INT64(m.changed);
}
