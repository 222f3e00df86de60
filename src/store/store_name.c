/*
 * store_name.c
 *		Clusters to contact ids.
 *
 * A contact's id is carried by one of its records: the first-known one that has
 * an id, unless a merge or split says which id is kept.  It is minted where none
 * of the records has one.  The ids that a contact's other records carry stay, and
 * lead to it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "store/store.h"

/* An id and the record that carries it. */
typedef struct ContactAlias
{
	pg_uuid_t	id;
	int			member;
	int64		minted_for;
	int64		minted_at;
	bool		moved;			/* from a record that has become somebody else's */
} ContactAlias;

static bool
better(const ContactAlias *a, const ContactAlias *b)
{
	if (a->minted_for != b->minted_for)
		return a->minted_for < b->minted_for;
	if (a->minted_at != b->minted_at)
		return a->minted_at < b->minted_at;
	return memcmp(&a->id, &b->id, UUID_LEN) < 0;
}

/* The cluster in which a merge, or a split, has its id kept; -1 = none. */
static int
pinned_cluster(const StoreLinks *links, int decision, const ContactAlias *aliases, int naliases)
{
	const IdentityDecision *d = &links->decisions[decision];
	int			cluster = -1;

	if (d->kind != ID_MERGE && d->kind != ID_SPLIT)
		return -1;
	for (int a = 0; a < naliases && cluster < 0; a++)
		if (memcmp(&aliases[a].id, &links->pinned[decision], UUID_LEN) == 0)
			cluster = aliases[a].member < 0 ? -1 : links->who[aliases[a].member].cluster;
	if (cluster < 0 || d->kind == ID_SPLIT)
		return cluster;
	for (int i = 0; i < d->nothers; i++)
	{
		int			m = store_find_member(links, d->others[i]);

		if (m >= 0 && links->who[m].cluster == cluster)
			return cluster;
	}
	return -1;
}

/*
 * Who carries the ids of a record that its source has given to somebody else:
 * the first-known of those that were one contact with it; -1 = nobody.
 */
static int
heir(const StoreLinks *links, int member)
{
	const StoreRecord *r = &links->members[member];

	/* only then: whom it is one contact with later is not of the old one */
	if (!r->reborn)
		return -1;
	for (int i = 0; i < links->n; i++)
		if (i != member && r->has_contact && links->members[i].has_contact &&
			memcmp(&links->members[i].contact_id, &r->contact_id, UUID_LEN) == 0)
			return i;
	return -1;
}

static void
move_aliases(const StoreLinks *links, const ContactAlias *aliases, int naliases)
{
	StoreArray	id;
	StoreArray	record;
	StoreArray	reused;

	store_array_init(&id, UUIDOID);
	store_array_init(&record, INT8OID);
	store_array_init(&reused, TIMESTAMPTZOID);
	for (int i = 0; i < naliases; i++)
	{
		if (!aliases[i].moved || aliases[i].member < 0)
			continue;
		store_array_add(&id, UUIDPGetDatum(&aliases[i].id), false);
		store_array_add(&record, Int64GetDatum(links->members[aliases[i].member].id), false);
		store_array_add_time(&reused, links->members[aliases[i].member].m.reused.effective);
	}
	if (id.n > 0)
		store_run("UPDATE contactsync.contact_aliases a SET record_id = u.record_id, reused_at = u.reused_at "
				  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) "
				  "AS u (id, record_id, reused_at) WHERE a.tenant_id = contactsync.current_tenant() AND a.id = u.id",
				  3, (StoreArray *[]) {&id, &record, &reused});
}

void
store_name_clusters(StoreLinks *links, bool mint_missing)
{
	const IdentityRecord *who = links->who;
	int			n = links->n;
	bool	   *named = palloc0(sizeof(bool) * Max(n, 1));
	int		   *best = palloc(sizeof(int) * Max(n, 1));
	StoreArray	ids;
	StoreArray	minted;
	StoreArray	minted_for;
	StoreArray	minted_reused;
	ContactAlias	   *aliases;
	uint64		naliases;

	store_array_init(&ids, INT8OID);
	for (int i = 0; i < n; i++)
		store_array_add(&ids, Int64GetDatum(links->members[i].id), false);
	store_array_init(&minted_reused, TIMESTAMPTZOID);
	naliases = store_run("SELECT a.record_id, a.id, a.minted_for, a.minted_at, a.reused_at FROM "
						 STORE_EACH_ROW(1, "contact_aliases", "record_id", "a"), 1, (StoreArray *[]) {&ids});
	aliases = palloc(sizeof(ContactAlias) * Max(naliases, 1));
	for (int i = 0; i < n; i++)
		best[i] = -1;
	for (uint64 row = 0; row < naliases; row++)
	{
		ContactAlias	   *a = &aliases[row];
		bool		isnull;
		int			c;

		a->member = store_find_member(links, store_int8(row, 1));
		a->id = *DatumGetUUIDP(store_value(row, 2, &isnull));
		a->minted_for = store_int8(row, 3);
		a->minted_at = store_time(row, 4);
		a->moved = store_time(row, 5) != links->members[a->member].m.reused.effective;
		if (a->moved)
			a->member = heir(links, a->member);
		if (a->member < 0)
			continue;
		c = who[a->member].cluster;
		if (best[c] < 0 || better(a, &aliases[best[c]]))
			best[c] = row;
	}
	if (mint_missing)
		move_aliases(links, aliases, naliases);
	for (int d = 0; d < links->ndecisions; d++)
	{
		int			c = pinned_cluster(links, d, aliases, naliases);

		if (c < 0 || named[c])
			continue;
		named[c] = true;
		links->contact[c] = links->pinned[d];
	}

	store_array_init(&minted, UUIDOID);
	store_array_init(&minted_for, INT8OID);
	for (int i = 0; i < n; i++)
	{
		int			c = who[i].cluster;

		/* members are sorted by id: this is the first-known of those of the cluster */
		if (named[c])
			continue;
		named[c] = true;
		if (best[c] >= 0)
			links->contact[c] = aliases[best[c]].id;
		else if (mint_missing)
		{
			links->contact[c] = store_mint();
			store_array_add(&minted, UUIDPGetDatum(&links->contact[c]), false);
			store_array_add(&minted_for, Int64GetDatum(links->members[i].id), false);
			store_array_add_time(&minted_reused, links->members[i].m.reused.effective);
		}
	}
	if (minted.n > 0)
		store_run("INSERT INTO contactsync.contact_aliases (id, record_id, minted_for, reused_at) "
				  "SELECT u.id, u.record_id, u.record_id, u.reused_at "
				  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) "
				  "AS u (id, record_id, reused_at)", 3, (StoreArray *[]) {&minted, &minted_for, &minted_reused});
}

/*
 * What records that went from one contact to another mean to those who hold the
 * contacts' ids.  That a contact is gone is noted where it goes.
 */
static void
note_events(StoreArray *records, StoreArray *from, StoreArray *to)
{
	store_run("INSERT INTO contactsync.contact_events (generation, event, contact_id, other_id) "
			  "SELECT t.generation, e.event, e.contact_id, e.other_id "
			  "FROM (SELECT DISTINCT 'split' AS event, u.f AS contact_id, u.t AS other_id "
			  "FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS u (f, t) "
			  "WHERE NOT EXISTS (SELECT FROM contactsync.contacts c WHERE c.tenant_id = contactsync.current_tenant() AND c.id = u.t) "
			  "AND EXISTS (SELECT FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() AND r.contact_id = u.f) "
			  "UNION ALL SELECT 'aliased', a.id, u.t "
			  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS u (r, f, t) "
			  "JOIN contactsync.contact_aliases a ON a.tenant_id = contactsync.current_tenant() AND a.record_id = u.r "
			  "WHERE a.id <> u.f AND a.id <> u.t ORDER BY 1, 2, 3) AS e "
			  "JOIN contactsync.tenant_state t ON t.tenant_id = contactsync.current_tenant()",
			  3, (StoreArray *[]) {records, from, to});
}

void
store_move_records(const StoreLinks *links, StoreArray *contacts, StoreArray *causes)
{
	StoreArray	moved;
	StoreArray	moved_to;
	StoreArray	left;
	StoreArray	left_from;
	StoreArray	left_to;

	store_array_init(&moved, INT8OID);
	store_array_init(&moved_to, UUIDOID);
	store_array_init(&left, INT8OID);
	store_array_init(&left_from, UUIDOID);
	store_array_init(&left_to, UUIDOID);
	for (int i = 0; i < links->n; i++)
	{
		StoreRecord *m = &links->members[i];
		pg_uuid_t  *to = &links->contact[links->who[i].cluster];
		bool		moves = !m->has_contact || memcmp(&m->contact_id, to, UUID_LEN) != 0;

		if (!moves && !m->changed)
			continue;
		store_array_add(contacts, UUIDPGetDatum(to), false);
		store_array_add(causes, Int64GetDatum(m->cause_id), m->cause_id == 0);
		if (!moves)
			continue;
		store_array_add(&moved, Int64GetDatum(m->id), false);
		store_array_add(&moved_to, UUIDPGetDatum(to), false);
		if (!m->has_contact)
			continue;
		store_array_add(contacts, UUIDPGetDatum(&m->contact_id), false);
		store_array_add(causes, Int64GetDatum(m->cause_id), m->cause_id == 0);
		store_array_add(&left, Int64GetDatum(m->id), false);
		store_array_add(&left_from, UUIDPGetDatum(&m->contact_id), false);
		store_array_add(&left_to, UUIDPGetDatum(to), false);
	}
	if (moved.n > 0)
		store_run("UPDATE contactsync.records r SET contact_id = u.contact_id "
				  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (id, contact_id) "
				  "WHERE r.tenant_id = contactsync.current_tenant() AND r.id = u.id",
				  2, (StoreArray *[]) {&moved, &moved_to});
	if (left.n > 0)
		note_events(&left, &left_from, &left_to);
}
