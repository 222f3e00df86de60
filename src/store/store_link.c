/*
 * store_link.c
 *		Records to clusters.
 *
 * A change of a record can only touch the records that it is connected to, by
 * keys that are not generic, decisions or merges at its source: those are
 * clustered anew, and nobody else.  Which keys are generic is kept up to date
 * with the records that assert them; when one turns generic, all that it had
 * connected is clustered anew, too.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"
#include "store/store.h"

static IdentityPolicy
load_policy(void)
{
	IdentityPolicy policy;

	identity_policy_defaults(&policy);
	if (store_run("SELECT (p.policy -> 'generic_names')::pg_catalog.int8, (p.policy -> 'max_records')::pg_catalog.int8 "
				  "FROM contactsync.identity_policies p WHERE p.tenant_id = contactsync.current_tenant() "
				  "ORDER BY p.version DESC LIMIT 1", 0, NULL) > 0)
	{
		/* 0 = not set */
		if (store_int8(0, 1) > 0)
			policy.generic_names = store_int8(0, 1);
		if (store_int8(0, 2) > 0)
			policy.max_records = store_int8(0, 2);
	}
	return policy;
}

/* The records that assert some keys. */
static void
add_holders(StoreArray *keys, StoreArray *seeds)
{
	uint64		rows = store_run("SELECT i.record_id FROM " STORE_EACH_ROW(1, "identities", "key", "i"),
								 1, (StoreArray *[]) {keys});

	for (uint64 row = 0; row < rows; row++)
		store_array_add(seeds, Int64GetDatum(store_int8(row, 1)), false);
}

/*
 * Bring generic_keys up to date for the keys that changed records have or had.
 * Whoever is connected by one that they had, or was by one that is generic from
 * now on, is added to those whose clusters are to be found anew.
 */
static void
note_generic(const IdentityPolicy *policy, StoreArray *changed, StoreArray *had, StoreArray *seeds)
{
	StoreArray	max;
	StoreArray	generic;
	StoreArray	specific;
	IdentityRecord *records;
	IdentityRecord **by_key;
	uint64		rows;

	store_array_init(&max, INT4OID);
	/* one more than may be: how many more does not matter */
	store_array_add(&max, Int32GetDatum(policy->max_records + 1), false);
	store_array_init(&generic, TEXTOID);
	store_array_init(&specific, TEXTOID);
	rows = store_run("SELECT k.key, g.key, r.names FROM (SELECT i.key FROM "
					 STORE_EACH_ROW(1, "identities", "record_id", "i") "UNION SELECT pg_catalog.unnest($3)) AS k "
					 "LEFT JOIN contactsync.generic_keys g ON g.tenant_id = contactsync.current_tenant() AND g.key = k.key "
					 "CROSS JOIN LATERAL (SELECT i.record_id FROM contactsync.identities i "
					 "WHERE i.tenant_id = contactsync.current_tenant() AND i.key = k.key LIMIT ($2)[1]) AS m "
					 "JOIN contactsync.records r ON r.tenant_id = contactsync.current_tenant() AND r.id = m.record_id "
					 "ORDER BY k.key", 3, (StoreArray *[]) {changed, &max, had});
	records = palloc0(sizeof(IdentityRecord) * Max(rows, 1));
	by_key = palloc(sizeof(IdentityRecord *) * Max(rows, 1));
	for (uint64 row = 0; row < rows;)
	{
		StrView		key = store_text(row, 1);
		bool		was = store_text(row, 2).ptr != NULL;
		int			n = 0;
		bool		is;

		CHECK_FOR_INTERRUPTS();
		for (; row < rows && strview_cmp(store_text(row, 1), key) == 0; row++)
		{
			records[row].names = store_names(row, 3, &records[row].nnames);
			by_key[n++] = &records[row];
		}
		is = identity_generic(policy, key, by_key, n);
		if (is != was)
			store_array_add_text(is ? &generic : &specific, key);
	}
	if (specific.n > 0)
		store_run("DELETE FROM contactsync.generic_keys g USING " STORE_EACH(1)
				  "WHERE g.tenant_id = contactsync.current_tenant() AND g.key = u.x",
				  1, (StoreArray *[]) {&specific});
	if (generic.n > 0)
	{
		store_run("INSERT INTO contactsync.generic_keys (key) SELECT x FROM " STORE_EACH(1),
				  1, (StoreArray *[]) {&generic});
		add_holders(&generic, seeds);
	}
	if (had->n > 0)
	{
		StoreArray	linking;

		store_array_init(&linking, TEXTOID);
		rows = store_run("SELECT u.x FROM " STORE_EACH(1) "WHERE NOT EXISTS (SELECT FROM contactsync.generic_keys g "
						 "WHERE g.tenant_id = contactsync.current_tenant() AND g.key = u.x)", 1, (StoreArray *[]) {had});
		for (uint64 row = 0; row < rows; row++)
			store_array_add_text(&linking, store_text(row, 1));
		add_holders(&linking, seeds);
	}
}

/* A row of refused_links. */
typedef struct RefusedLink
{
	int64		record_id;
	int64		other_id;
	StrView		key;
	StrView		reason;
	float4		score;
} RefusedLink;

static int
refused_link_cmp(const void *a, const void *b)
{
	const RefusedLink *x = a;
	const RefusedLink *y = b;

	if (x->record_id != y->record_id)
		return x->record_id < y->record_id ? -1 : 1;
	return x->other_id < y->other_id ? -1 : x->other_id > y->other_id;
}

static RefusedLink *
load_refused(const StoreLinks *links, int *n)
{
	StoreArray	ids;
	RefusedLink *stored;
	uint64		rows;

	store_array_init(&ids, INT8OID);
	for (int i = 0; i < links->n; i++)
		store_array_add(&ids, Int64GetDatum(links->members[i].id), false);
	rows = store_run("SELECT f.record_id, f.other_id, f.key, f.reason, f.score FROM "
					 STORE_EACH_ROW(1, "refused_links", "record_id", "f"), 1, (StoreArray *[]) {&ids});
	stored = palloc_extended(sizeof(RefusedLink) * Max(rows, 1), MCXT_ALLOC_HUGE);
	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;

		stored[row].record_id = store_int8(row, 1);
		stored[row].other_id = store_int8(row, 2);
		stored[row].key = store_text(row, 3);
		stored[row].reason = store_text(row, 4);
		stored[row].score = DatumGetFloat4(store_value(row, 5, &isnull));
	}
	qsort(stored, rows, sizeof(RefusedLink), refused_link_cmp);
	*n = rows;
	return stored;
}

/* Write what was refused among these records, as far as it differs from what is stored. */
static void
save_refused(const StoreLinks *links)
{
	static const StoreColumn columns[] = {
		{"record_id", INT8OID}, {"other_id", INT8OID}, {"key", TEXTOID}, {"reason", TEXTOID}, {"score", FLOAT4OID}
	};
	StoreRows	changed;
	StoreArray	gone, gone_other;
	int			nstored;
	RefusedLink *stored = load_refused(links, &nstored);
	bool	   *kept = palloc0(sizeof(bool) * Max(nstored, 1));

	store_array_init(&gone, INT8OID);
	store_array_init(&gone_other, INT8OID);
	store_rows_init(&changed, columns, lengthof(columns));
	for (int i = 0; i < links->nrefused; i++)
	{
		const IdentityRefused *f = &links->refused[i];
		int64		x = links->members[f->a].id;
		int64		y = links->members[f->b].id;
		RefusedLink now = {Min(x, y), Max(x, y), f->key, {NULL, 0}, (float4) f->score};
		const RefusedLink *was = bsearch(&now, stored, nstored, sizeof(RefusedLink), refused_link_cmp);

		now.reason.ptr = identity_refusal_names[f->reason];
		now.reason.len = strlen(now.reason.ptr);
		if (was)
			kept[was - stored] = true;
		if (was && strview_cmp(was->key, now.key) == 0 && strview_cmp(was->reason, now.reason) == 0 && was->score == now.score)
			continue;
		store_put(&changed, Int64GetDatum(now.record_id));
		store_put(&changed, Int64GetDatum(now.other_id));
		store_put_text(&changed, now.key);
		store_put_text(&changed, now.reason);
		store_put(&changed, Float4GetDatum(now.score));
	}
	for (int i = 0; i < nstored; i++)
	{
		if (kept[i])
			continue;
		store_array_add(&gone, Int64GetDatum(stored[i].record_id), false);
		store_array_add(&gone_other, Int64GetDatum(stored[i].other_id), false);
	}
	if (gone.n > 0)
		store_run("DELETE FROM contactsync.refused_links f "
				  "USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (record_id, other_id) "
				  "WHERE f.tenant_id = contactsync.current_tenant() AND f.record_id = u.record_id AND f.other_id = u.other_id",
				  2, (StoreArray *[]) {&gone, &gone_other});
	store_run_rows("INSERT INTO contactsync.refused_links AS f (record_id, other_id, key, reason, score) "
				   "SELECT u.record_id, u.other_id, u.key, u.reason, u.score FROM u "
				   "ON CONFLICT (tenant_id, record_id, other_id) DO UPDATE SET key = excluded.key, reason = excluded.reason, "
				   "score = excluded.score", &changed);
}

/* What a batch did to the members that it changed. */
static void
note_changed(StoreLinks *links, const StoreRecord *records, int nrecords)
{
	for (int k = 0; k < nrecords; k++)
	{
		int			i = records[k].changed ? store_find_member(links, records[k].id) : -1;

		if (i < 0)
			continue;
		links->members[i].changed = true;
		links->members[i].cause_id = records[k].cause_id;
		links->members[i].reborn = records[k].restamped && records[k].m.reused.effective != records[k].was_reused;
	}
}

void
store_cluster_only(StoreLinks *links)
{
	IdentityPolicy policy = load_policy();

	for (int i = 0; i < links->n; i++)
	{
		const StoreRecord *m = &links->members[i];
		IdentityRecord *w = &links->who[i];

		w->record_id = m->id;
		w->source = m->source;
		w->source_id = m->source_id;
		w->merged_into = m->m.merged_into;
		w->alive = m->m.alive;
		w->many_per_source = m->many_per_source;
		w->nnames = m->nnames;
		w->names = m->names;
	}
	identity_cluster(&policy, links->who, links->n, links->decisions, links->ndecisions,
					 &links->refused, &links->nrefused);
}

void
store_cluster(StoreLinks *links, bool mint)
{
	store_cluster_only(links);
	store_name_clusters(links, mint);
}

void
store_link(StoreRecord *records, int nrecords, StoreArray *contacts, StoreArray *causes)
{
	IdentityPolicy policy;
	StoreArray	changed;
	StoreArray	had;
	StoreArray	left;
	StoreArray	seeds;
	StoreLinks	links;

	store_array_init(&changed, INT8OID);
	store_array_init(&had, TEXTOID);
	store_array_init(&left, UUIDOID);
	store_array_init(&seeds, INT8OID);
	for (int i = 0; i < nrecords; i++)
	{
		const StoreRecord *r = &records[i];

		if (!r->changed)
			continue;
		store_array_add(&changed, Int64GetDatum(r->id), false);
		store_array_add(&seeds, Int64GetDatum(r->id), false);
		for (int k = 0; r->had && k < r->had->n; k++)
			store_array_add(&had, r->had->values[k], false);
		/* what it is in one contact with may have been so by what it no longer says */
		if (r->has_contact && (r->restamped ||
							   (r->was_merged_into.len > 0 && strview_cmp(r->was_merged_into, r->m.merged_into) != 0)))
			store_array_add(&left, UUIDPGetDatum(&r->contact_id), false);
	}
	if (changed.n == 0)
		return;
	if (left.n > 0)
	{
		uint64		n = store_run("SELECT r.id FROM " STORE_EACH_ROW(1, "records", "contact_id", "r"),
								  1, (StoreArray *[]) {&left});

		for (uint64 row = 0; row < n; row++)
			store_array_add(&seeds, Int64GetDatum(store_int8(row, 1)), false);
	}
	policy = load_policy();
	note_generic(&policy, &changed, &had, &seeds);
	store_connect(&seeds, &links);
	note_changed(&links, records, nrecords);
	store_cluster(&links, true);
	save_refused(&links);
	store_move_records(&links, contacts, causes);
}
