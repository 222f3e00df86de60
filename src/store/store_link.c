/*
 * store_link.c
 *		Records to clusters to contact ids.
 *
 * A change of a record can only touch the records that it is connected to by
 * keys, so those are clustered anew and nobody else.  A contact's id belongs to
 * its first-known record; the ids that other records once had stay aliases.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"
#include "store/store.h"

/*
 * Only mail addresses link; phone numbers are kept for find().  Written so that
 * no index serves it, and with OFFSET 0 around each step: the rows are to be
 * found by their record and then by their key, whatever statistics say.
 */
#define LINKING_KEY(alias_) \
	"pg_catalog.left(" alias_ ".key, 6) = 'email:'"

static int
record_id_cmp(const void *a, const void *b)
{
	const StoreRecord *x = a;
	const StoreRecord *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int
find_record(const StoreRecord *members, int n, int64 id)
{
	StoreRecord probe;
	const StoreRecord *r;

	probe.id = id;
	r = bsearch(&probe, members, n, sizeof(StoreRecord), record_id_cmp);
	return r ? r - members : -1;
}

/* The keys by which these records may link; members are sorted by id. */
static void
load_keys(IdentityRecord *who, const StoreRecord *members, int n, StoreArray *ids)
{
	uint64		rows = store_run("SELECT i.record_id, i.key, i.first_version FROM "
								 STORE_EACH_ROW(1, "identities", "record_id", "i")
								 "WHERE " LINKING_KEY("i") " ORDER BY i.record_id",
								 1, (StoreArray *[]) {ids});
	IdentityKey *keys = palloc(sizeof(IdentityKey) * Max(rows, 1));

	for (uint64 row = 0; row < rows; row++)
	{
		IdentityRecord *w = &who[find_record(members, n, store_int8(row, 1))];

		if (w->nkeys++ == 0)
			w->keys = &keys[row];
		keys[row].key = store_text(row, 2);
		keys[row].first_version = store_time(row, 3);
	}
}

/*
 * The contact id of each cluster, by its first-known record; minted, if that
 * is asked for, where that record has none yet.  Members are sorted by id, so the first of a cluster is
 * its first-known.
 */
static void
name_clusters(StoreLinks *links, bool mint_missing)
{
	const IdentityRecord *who = links->who;
	const StoreRecord *members = links->members;
	pg_uuid_t  *contact = links->contact;
	int			n = links->n;
	int		   *first = palloc(sizeof(int) * Max(n, 1));	/* by cluster */
	bool	   *named = palloc0(sizeof(bool) * Max(n, 1));
	StoreArray	ids;
	StoreArray	minted;
	StoreArray	minted_for;
	uint64		rows;

	store_array_init(&ids, INT8OID);
	store_array_init(&minted, UUIDOID);
	store_array_init(&minted_for, INT8OID);
	for (int i = 0; i < n; i++)
		first[i] = -1;
	for (int i = 0; i < n; i++)
	{
		if (first[who[i].cluster] >= 0)
			continue;
		first[who[i].cluster] = i;
		store_array_add(&ids, Int64GetDatum(members[i].id), false);
	}

	rows = store_run("SELECT a.record_id, a.id FROM " STORE_EACH_ROW(1, "contact_aliases", "record_id", "a")
					 "ORDER BY a.record_id, a.minted_at, a.id", 1, (StoreArray *[]) {&ids});
	for (uint64 row = 0; row < rows; row++)
	{
		int			i = find_record(members, n, store_int8(row, 1));
		bool		isnull;

		if (named[who[i].cluster])
			continue;
		named[who[i].cluster] = true;
		contact[who[i].cluster] = *DatumGetUUIDP(store_value(row, 2, &isnull));
	}
	for (int c = 0; c < n && mint_missing; c++)
	{
		if (first[c] < 0 || named[c])
			continue;
		contact[c] = store_mint();
		store_array_add(&minted, UUIDPGetDatum(&contact[c]), false);
		store_array_add(&minted_for, Int64GetDatum(members[first[c]].id), false);
	}
	if (minted.n > 0)
		store_run("INSERT INTO contactsync.contact_aliases (id, record_id) "
				  "SELECT u.id, u.record_id FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) "
				  "AS u (id, record_id)", 2, (StoreArray *[]) {&minted, &minted_for});
}

void
store_connect(StoreArray *record_ids, StoreLinks *links)
{
	StoreArray	ids;
	uint64		n;

	store_array_init(&ids, INT8OID);
	n = store_run("WITH RECURSIVE connected (id) AS ("
				  "SELECT pg_catalog.unnest($1) UNION "
				  "SELECT b.record_id FROM connected c CROSS JOIN LATERAL ("
				  "SELECT i.key FROM contactsync.identities i WHERE i.tenant_id = contactsync.current_tenant() "
				  "AND i.record_id = c.id AND " LINKING_KEY("i") " OFFSET 0) a CROSS JOIN LATERAL ("
				  "SELECT i.record_id FROM contactsync.identities i WHERE i.tenant_id = contactsync.current_tenant() "
				  "AND i.key = a.key OFFSET 0) b) "
				  "SELECT " STORE_RECORD_COLUMNS " FROM connected c JOIN contactsync.records r "
				  "ON r.tenant_id = contactsync.current_tenant() AND r.id = c.id" STORE_SOURCE_JOIN "ORDER BY r.id",
				  1, (StoreArray *[]) {record_ids});
	links->n = n;
	links->members = palloc(sizeof(StoreRecord) * Max(n, 1));
	links->who = palloc0(sizeof(IdentityRecord) * Max(n, 1));
	links->contact = palloc0(sizeof(pg_uuid_t) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		store_read_record(i, &links->members[i]);
		store_array_add(&ids, Int64GetDatum(links->members[i].id), false);
	}
	load_keys(links->who, links->members, n, &ids);
}

void
store_cluster(StoreLinks *links, bool mint)
{
	IdentityRefused *refused;
	int			nrefused;

	for (int i = 0; i < links->n; i++)
	{
		const StoreRecord *m = &links->members[i];
		IdentityRecord *w = &links->who[i];

		w->record_id = m->id;
		w->source = m->source;
		w->source_id = m->source_id;
		w->alive = m->m.alive;
		w->nnames = m->nnames;
		w->names = m->names;
	}
	identity_cluster(links->who, links->n, &refused, &nrefused);
	name_clusters(links, mint);
}

void
store_link(StoreRecord *records, int nrecords, StoreArray *contacts, StoreArray *causes)
{
	StoreArray	changed;
	StoreArray	left;
	StoreArray	moved;
	StoreArray	moved_to;
	StoreLinks	links;

	store_array_init(&changed, INT8OID);
	store_array_init(&left, UUIDOID);
	store_array_init(&moved, INT8OID);
	store_array_init(&moved_to, UUIDOID);
	for (int i = 0; i < nrecords; i++)
		if (records[i].changed)
			store_array_add(&changed, Int64GetDatum(records[i].id), false);
	if (changed.n == 0)
		return;
	/* where evidence may have gone, no key leads to who was linked by it */
	for (int i = 0; i < nrecords; i++)
		if (records[i].restamped && records[i].has_contact)
			store_array_add(&left, UUIDPGetDatum(&records[i].contact_id), false);
	if (left.n > 0)
	{
		uint64		n = store_run("SELECT r.id FROM " STORE_EACH_ROW(1, "records", "contact_id", "r"),
								  1, (StoreArray *[]) {&left});

		for (uint64 row = 0; row < n; row++)
			store_array_add(&changed, Int64GetDatum(store_int8(row, 1)), false);
	}
	store_connect(&changed, &links);
	store_cluster(&links, true);

	for (int i = 0; i < links.n; i++)
	{
		StoreRecord *m = &links.members[i];
		pg_uuid_t  *to = &links.contact[links.who[i].cluster];
		bool		moves = !m->has_contact || memcmp(&m->contact_id, to, sizeof(*to)) != 0;
		int64		cause = 0;

		for (int k = 0; k < nrecords; k++)
			if (records[k].id == m->id && records[k].changed)
				cause = records[k].cause_id;
		if (moves)
		{
			store_array_add(&moved, Int64GetDatum(m->id), false);
			store_array_add(&moved_to, UUIDPGetDatum(to), false);
		}
		if (!moves && cause == 0)
			continue;
		store_array_add(contacts, UUIDPGetDatum(to), false);
		store_array_add(causes, Int64GetDatum(cause), cause == 0);
		if (moves && m->has_contact)
		{
			store_array_add(contacts, UUIDPGetDatum(&m->contact_id), false);
			store_array_add(causes, Int64GetDatum(cause), cause == 0);
		}
	}
	if (moved.n > 0)
		store_run("UPDATE contactsync.records r SET contact_id = u.contact_id "
				  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (id, contact_id) "
				  "WHERE r.tenant_id = contactsync.current_tenant() AND r.id = u.id",
				  2, (StoreArray *[]) {&moved, &moved_to});
}
