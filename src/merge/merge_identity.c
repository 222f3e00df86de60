/*
 * merge_identity.c
 *		Which records are one person: clusters of records that share keys.
 *
 * Edges are taken in an order that depends on the evidence alone: the earliest
 * version at which both records had shown the key, then the key, then the
 * records' own keys.  An edge is refused where it would join records that must
 * not be one: that share a key while their names never agreed, two live ones
 * of a source, or too many.
 */
#include "postgres.h"

#include "merge/merge.h"

#define CLUSTER_MAX		64

typedef struct Edge
{
	int			a;				/* a < b in record key order */
	int			b;
	int64		since;
	StrView		key;
} Edge;

typedef struct KeyRef
{
	StrView		key;
	int64		first_version;
	int			record;
} KeyRef;

static int
record_cmp(const IdentityRecord *a, const IdentityRecord *b)
{
	int			r = strview_cmp(a->source, b->source);

	return r ? r : strview_cmp(a->source_id, b->source_id);
}

/* "last\nfirst" split at the line break. */
static void
split_name(StrView name, StrView *last, StrView *first)
{
	const char *nl = memchr(name.ptr, '\n', name.len);

	last->ptr = name.ptr;
	last->len = nl ? nl - name.ptr : name.len;
	first->ptr = nl ? nl + 1 : NULL;
	first->len = nl ? name.len - last->len - 1 : 0;
}

/* One is the other's initial, with or without a full stop. */
static bool
is_initial(StrView a, StrView b)
{
	int			n = a.len;

	if (n > 1 && a.ptr[n - 1] == '.')
		n--;
	else if (n > 4 || (n > 1 && !IS_HIGHBIT_SET(a.ptr[0])))
		return false;
	/* one character: ASCII, or the bytes of one multi-byte one */
	if (n > 1 && !IS_HIGHBIT_SET(a.ptr[0]))
		return false;
	for (int i = 1; i < n; i++)
		if (((unsigned char) a.ptr[i] & 0xC0) != 0x80)
			return false;
	return b.len >= n && memcmp(a.ptr, b.ptr, n) == 0;
}

static bool
names_match(StrView x, StrView y)
{
	StrView		xl, xf, yl, yf;

	split_name(x, &xl, &xf);
	split_name(y, &yl, &yf);
	if (strview_cmp(xl, yl) != 0)
		return false;
	return xf.len == 0 || yf.len == 0 || strview_cmp(xf, yf) == 0 ||
		is_initial(xf, yf) || is_initial(yf, xf);
}

bool
identity_names_agree(const IdentityRecord *a, const IdentityRecord *b)
{
	if (a->nnames == 0 || b->nnames == 0)
		return true;
	for (int i = 0; i < a->nnames; i++)
		for (int j = 0; j < b->nnames; j++)
			if (names_match(a->names[i], b->names[j]))
				return true;
	return false;
}

static int
keyref_cmp(const void *a, const void *b)
{
	const KeyRef *x = a;
	const KeyRef *y = b;
	int			r = strview_cmp(x->key, y->key);

	return r ? r : x->record - y->record;
}

static int
edge_cmp(const void *a, const void *b)
{
	const Edge *x = a;
	const Edge *y = b;
	int			r;

	if (x->since != y->since)
		return x->since < y->since ? -1 : 1;
	if ((r = strview_cmp(x->key, y->key)) != 0)
		return r;
	return x->a != y->a ? x->a - y->a : x->b - y->b;
}

static int
record_ptr_cmp(const void *a, const void *b)
{
	return record_cmp(*(IdentityRecord *const *) a, *(IdentityRecord *const *) b);
}

static int
find(int *parent, int i)
{
	while (parent[i] != i)
		i = parent[i] = parent[parent[i]];
	return i;
}

static bool
share_a_key(const IdentityRecord *a, const IdentityRecord *b)
{
	for (int i = 0; i < a->nkeys; i++)
		for (int j = 0; j < b->nkeys; j++)
			if (strview_cmp(a->keys[i].key, b->keys[j].key) == 0)
				return true;
	return false;
}

/* May two clusters become one?  next chains the members of each. */
static bool
may_join(IdentityRecord **rec, const int *next, const int *size, int ra, int rb,
		 IdentityRefusal *reason)
{
	*reason = IR_OVERSIZE;
	if (size[ra] + size[rb] > CLUSTER_MAX)
		return false;
	for (int i = ra; i >= 0; i = next[i])
	{
		for (int j = rb; j >= 0; j = next[j])
		{
			*reason = IR_SAME_SOURCE;
			if (rec[i]->alive && rec[j]->alive && !rec[i]->many_per_source &&
				strview_cmp(rec[i]->source, rec[j]->source) == 0)
				return false;
			*reason = IR_NAMES_DISAGREE;
			if (!identity_names_agree(rec[i], rec[j]) && share_a_key(rec[i], rec[j]))
				return false;
		}
	}
	return true;
}

void
identity_cluster(IdentityRecord *records, int nrecords,
				 IdentityRefused **refused, int *nrefused)
{
	IdentityRecord **rec = palloc(sizeof(*rec) * Max(nrecords, 1));
	int		   *parent = palloc(sizeof(int) * Max(nrecords, 1));
	int		   *next = palloc(sizeof(int) * Max(nrecords, 1));
	int		   *last = palloc(sizeof(int) * Max(nrecords, 1));
	int		   *size = palloc(sizeof(int) * Max(nrecords, 1));
	KeyRef	   *refs;
	Edge	   *edges;
	int			nrefs = 0;
	int			nedges = 0;
	int			maxedges = 64;

	/* from here on a record is its place in record key order */
	for (int i = 0; i < nrecords; i++)
	{
		rec[i] = &records[i];
		nrefs += records[i].nkeys;
	}
	qsort(rec, nrecords, sizeof(*rec), record_ptr_cmp);

	refs = palloc(sizeof(KeyRef) * Max(nrefs, 1));
	nrefs = 0;
	for (int i = 0; i < nrecords; i++)
	{
		parent[i] = last[i] = i;
		next[i] = -1;
		size[i] = 1;
		for (int k = 0; k < rec[i]->nkeys; k++)
		{
			refs[nrefs].key = rec[i]->keys[k].key;
			refs[nrefs].first_version = rec[i]->keys[k].first_version;
			refs[nrefs++].record = i;
		}
	}
	qsort(refs, nrefs, sizeof(KeyRef), keyref_cmp);

	edges = palloc(sizeof(Edge) * maxedges);
	for (int i = 0; i < nrefs; i++)
	{
		for (int j = i + 1; j < nrefs && strview_cmp(refs[i].key, refs[j].key) == 0; j++)
		{
			if (nedges == maxedges)
				edges = repalloc(edges, sizeof(Edge) * (maxedges *= 2));
			edges[nedges].a = refs[i].record;
			edges[nedges].b = refs[j].record;
			edges[nedges].key = refs[i].key;
			edges[nedges++].since = Max(refs[i].first_version, refs[j].first_version);
		}
	}
	qsort(edges, nedges, sizeof(Edge), edge_cmp);

	*refused = palloc(sizeof(IdentityRefused) * Max(nedges, 1));
	*nrefused = 0;
	for (int e = 0; e < nedges; e++)
	{
		int			ra = find(parent, edges[e].a);
		int			rb = find(parent, edges[e].b);
		IdentityRefusal reason;

		if (ra == rb)
			continue;
		if (!may_join(rec, next, size, ra, rb, &reason))
		{
			IdentityRefused *f = &(*refused)[(*nrefused)++];

			f->a = rec[edges[e].a] - records;
			f->b = rec[edges[e].b] - records;
			f->key = edges[e].key;
			f->reason = reason;
			continue;
		}
		if (rb < ra)
		{
			int			t = ra;

			ra = rb;
			rb = t;
		}
		parent[rb] = ra;
		next[last[ra]] = rb;
		last[ra] = last[rb];
		size[ra] += size[rb];
	}
	for (int i = 0; i < nrecords; i++)
		rec[i]->cluster = rec[find(parent, i)] - records;
}
