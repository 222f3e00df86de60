/*
 * merge_identity.c
 *		Which records are one person: clusters of records.
 *
 * First decisions, the latest first: each is carried out as far as those after
 * it allow.  Then merges that a source made of its own records.  What is
 * together by then has all of its names in common, and the evidence is weighed
 * with these: edges between records that share a key, in an order that hangs on
 * the evidence alone (strength, the earliest version at which both had shown the
 * key, the key, the records' own keys).  An edge is refused where it would join
 * what must not be one: records decided apart, records that share a key while
 * their names never agreed, different exclusive ids of one kind, two live records
 * of one source, or too many.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "merge/merge.h"

const char *const identity_refusal_names[] = {
	"names_disagree", "names_unknown", "ids_differ", "same_source", "oversize"
};

/* How much a key of each strength says, and what names make of it. */
static const double strength_weight[] = {0, 0.5, 0.8, 0.95};
#define UNKNOWN_NAMES_FACTOR	0.75
#define CONTRADICTED_FACTOR		0.5

typedef struct Edge
{
	int			a;				/* a < b in record key order */
	int			b;
	IdentityStrength strength;
	bool		named;			/* names agree, rather than are not known */
	int64		since;
	StrView		key;
} Edge;

typedef struct KeyRef
{
	const IdentityKey *key;
	int			record;
} KeyRef;

/* Two records that must not be one. */
typedef struct Apart
{
	int			other;
	int			next;			/* of the same record; -1 = none */
	bool		decided;
} Apart;

/* A link that was refused, before those of two clusters are put together. */
typedef struct Refusal
{
	int			a;
	int			b;
	int			ca;				/* their clusters, ca < cb */
	int			cb;
	StrView		key;
	IdentityRefusal reason;
	double		weight;
} Refusal;

typedef struct Clusters
{
	const IdentityPolicy *policy;
	IdentityRecord **rec;		/* in record key order; a record is its place here */
	int			n;
	int		   *parent;
	int		   *next;			/* chains the members of a cluster */
	int		   *last;
	int		   *size;
	int		   *apart;			/* heads of lists in aparts */
	int			naparts;
	int			maxaparts;
	Apart	   *aparts;
	/* after what is decided: names, and exclusive ids, of all that are together */
	StrView   **names;
	int		   *nnames;
	StrView   **ids;
	int		   *nids;
	int			nrefusals;
	int			maxrefusals;
	Refusal    *refusals;
} Clusters;

static int
record_cmp(const IdentityRecord *a, const IdentityRecord *b)
{
	int			r = strview_cmp(a->source, b->source);

	return r ? r : strview_cmp(a->source_id, b->source_id);
}

static int
record_ptr_cmp(const void *a, const void *b)
{
	return record_cmp(*(IdentityRecord *const *) a, *(IdentityRecord *const *) b);
}

static int
keyref_cmp(const void *a, const void *b)
{
	const KeyRef *x = a;
	const KeyRef *y = b;
	int			r = strview_cmp(x->key->key, y->key->key);

	return r ? r : x->record - y->record;
}

static int
edge_cmp(const void *a, const void *b)
{
	const Edge *x = a;
	const Edge *y = b;
	int			r;

	if (x->strength != y->strength)
		return x->strength > y->strength ? -1 : 1;
	if (x->since != y->since)
		return x->since < y->since ? -1 : 1;
	if ((r = strview_cmp(x->key, y->key)) != 0)
		return r;
	return x->a != y->a ? x->a - y->a : x->b - y->b;
}

/* The latest first. */
static int
decision_cmp(const void *a, const void *b)
{
	const IdentityDecision *x = a;
	const IdentityDecision *y = b;

	if (x->decided_at != y->decided_at)
		return x->decided_at > y->decided_at ? -1 : 1;
	return x->id > y->id ? -1 : x->id < y->id;
}

static int
find(Clusters *c, int i)
{
	while (c->parent[i] != i)
		i = c->parent[i] = c->parent[c->parent[i]];
	return i;
}

/* Make two clusters one, named by the least of its members. */
static void
join(Clusters *c, int ra, int rb)
{
	if (rb < ra)
	{
		int			t = ra;

		ra = rb;
		rb = t;
	}
	c->parent[rb] = ra;
	c->next[c->last[ra]] = rb;
	c->last[ra] = c->last[rb];
	c->size[ra] += c->size[rb];
}

static void
add_apart(Clusters *c, int a, int b, bool decided)
{
	int			pair[2] = {a, b};

	for (int k = 0; k < 2; k++)
	{
		Apart	   *x;

		if (c->naparts == c->maxaparts)
		{
			c->maxaparts = Max(c->maxaparts * 2, 64);
			c->aparts = c->aparts == NULL ? palloc(sizeof(Apart) * c->maxaparts) :
				repalloc_huge(c->aparts, sizeof(Apart) * c->maxaparts);
		}
		x = &c->aparts[c->naparts];
		x->other = pair[1 - k];
		x->decided = decided;
		x->next = c->apart[pair[k]];
		c->apart[pair[k]] = c->naparts++;
	}
}

/* Is a member of one cluster to be apart from one of the other? */
static bool
is_apart(Clusters *c, int ra, int rb, bool *decided)
{
	bool		found = false;
	int			small = c->size[ra] <= c->size[rb] ? ra : rb;
	int			large = small == ra ? rb : ra;

	*decided = false;
	for (int i = small; i >= 0; i = c->next[i])
	{
		for (int k = c->apart[i]; k >= 0; k = c->aparts[k].next)
		{
			if (find(c, c->aparts[k].other) != large)
				continue;
			found = true;
			*decided |= c->aparts[k].decided;
		}
	}
	return found;
}

/* The places, in record key order, of those of some records that are among ours. */
static int
places_of(Clusters *c, const int *place_of, const int64 *sorted_ids, const int64 *ids, int nids, int *places)
{
	int			n = 0;

	for (int i = 0; i < nids; i++)
	{
		int			lo = 0;
		int			hi = c->n;

		while (lo < hi)
		{
			int			mid = lo + (hi - lo) / 2;

			if (sorted_ids[mid] < ids[i])
				lo = mid + 1;
			else
				hi = mid;
		}
		if (lo < c->n && sorted_ids[lo] == ids[i])
			places[n++] = place_of[lo];
	}
	return n;
}

static int
int_cmp(const void *a, const void *b)
{
	int			x = *(const int *) a;
	int			y = *(const int *) b;

	return x < y ? -1 : x > y;
}

typedef struct IdPlace
{
	int64		id;
	int			place;
} IdPlace;

static int
id_place_cmp(const void *a, const void *b)
{
	const IdPlace *x = a;
	const IdPlace *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* Returns whether they are one then. */
static bool
join_if_allowed(Clusters *c, int a, int b)
{
	int			ra = find(c, a);
	int			rb = find(c, b);
	bool		decided;

	if (ra == rb)
		return true;
	if (is_apart(c, ra, rb, &decided))
		return false;
	join(c, ra, rb);
	return true;
}

static void
apply_decisions(Clusters *c, IdentityDecision *decisions, int ndecisions)
{
	IdPlace    *by_id = palloc(sizeof(IdPlace) * Max(c->n, 1));
	int64	   *ids = palloc(sizeof(int64) * Max(c->n, 1));
	int		   *place = palloc(sizeof(int) * Max(c->n, 1));

	for (int i = 0; i < c->n; i++)
	{
		by_id[i].id = c->rec[i]->record_id;
		by_id[i].place = i;
	}
	qsort(by_id, c->n, sizeof(IdPlace), id_place_cmp);
	for (int i = 0; i < c->n; i++)
	{
		ids[i] = by_id[i].id;
		place[i] = by_id[i].place;
	}
	qsort(decisions, ndecisions, sizeof(IdentityDecision), decision_cmp);
	for (int d = 0; d < ndecisions; d++)
	{
		const IdentityDecision *x = &decisions[d];
		int		   *a = palloc(sizeof(int) * Max(x->nrecords, 1));
		int		   *b = palloc(sizeof(int) * Max(x->nothers, 1));
		int			na = places_of(c, place, ids, x->records, x->nrecords, a);
		int			nb = places_of(c, place, ids, x->others, x->nothers, b);

		CHECK_FOR_INTERRUPTS();
		/* to the first that may be: what is linked with several holds these not together */
		for (int j = 0; j < nb && x->kind == ID_LINK; j++)
			for (int i = 0; i < na && !join_if_allowed(c, a[i], b[j]); i++)
				;
		qsort(a, na, sizeof(int), int_cmp);
		qsort(b, nb, sizeof(int), int_cmp);
		for (int i = 0; i < na; i++)
		{
			for (int j = 0; j < nb; j++)
			{
				if (x->kind == ID_MERGE)
					join_if_allowed(c, a[i], b[j]);
				else if (x->kind != ID_LINK && find(c, a[i]) != find(c, b[j]))
					add_apart(c, a[i], b[j], true);
			}
		}
		for (int i = 0; i < na && x->kind == ID_SPLIT; i++)
			for (int j = i + 1; j < na; j++)
				join_if_allowed(c, a[i], a[j]);
		for (int i = 0; i < nb && x->kind == ID_SPLIT; i++)
			for (int j = i + 1; j < nb; j++)
				join_if_allowed(c, b[i], b[j]);
		pfree(a);
		pfree(b);
	}
}

/* What a source says itself of two of its records. */
static void
apply_source_merges(Clusters *c)
{
	for (int i = 0; i < c->n; i++)
	{
		IdentityRecord probe = {0};
		IdentityRecord *p = &probe;
		IdentityRecord **into;

		if (c->rec[i]->merged_into.len == 0)
			continue;
		probe.source = c->rec[i]->source;
		probe.source_id = c->rec[i]->merged_into;
		into = bsearch(&p, c->rec, c->n, sizeof(p), record_ptr_cmp);
		if (into != NULL)
			join_if_allowed(c, i, into - c->rec);
	}
}

/* What is together by decision or at its source has its names and exclusive ids in common. */
static void
pool_evidence(Clusters *c)
{
	for (int i = 0; i < c->n; i++)
	{
		int			nnames = 0;
		int			nids = 0;

		if (find(c, i) != i)
			continue;
		for (int m = i; m >= 0; m = c->next[m])
		{
			nnames += c->rec[m]->nnames;
			for (int k = 0; k < c->rec[m]->nkeys; k++)
				nids += identity_kind_len(c->rec[m]->keys[k].key) > 0 && !c->rec[m]->keys[k].generic;
		}
		c->names[i] = palloc(sizeof(StrView) * Max(nnames, 1));
		c->ids[i] = palloc(sizeof(StrView) * Max(nids, 1));
		c->nnames[i] = c->nids[i] = 0;
		for (int m = i; m >= 0; m = c->next[m])
		{
			memcpy(c->names[i] + c->nnames[i], c->rec[m]->names, sizeof(StrView) * c->rec[m]->nnames);
			c->nnames[i] += c->rec[m]->nnames;
			for (int k = 0; k < c->rec[m]->nkeys; k++)
				if (identity_kind_len(c->rec[m]->keys[k].key) > 0 && !c->rec[m]->keys[k].generic)
					c->ids[i][c->nids[i]++] = c->rec[m]->keys[k].key;
		}
		for (int m = c->next[i]; m >= 0; m = c->next[m])
		{
			c->names[m] = c->names[i];
			c->nnames[m] = c->nnames[i];
			c->ids[m] = c->ids[i];
			c->nids[m] = c->nids[i];
		}
	}
}

/* Do two sets have exclusive ids of one kind, and none of that kind in common? */
static bool
ids_differ(int na, const StrView *a, int nb, const StrView *b)
{
	for (int i = 0; i < na; i++)
	{
		int			kind = identity_kind_len(a[i]);
		bool		both = false;
		bool		common = false;

		for (int j = 0; j < nb; j++)
		{
			if (identity_kind_len(b[j]) != kind || memcmp(a[i].ptr, b[j].ptr, kind) != 0)
				continue;
			both = true;
			for (int k = 0; k < na && !common; k++)
				common = strview_cmp(a[k], b[j]) == 0;
		}
		if (both && !common)
			return true;
	}
	return false;
}

static void
add_refusal(Clusters *c, const Edge *e, IdentityRefusal reason, double factor)
{
	Refusal    *r;

	if (c->nrefusals == c->maxrefusals)
	{
		c->maxrefusals = Max(c->maxrefusals * 2, 64);
		c->refusals = c->refusals == NULL ? palloc(sizeof(Refusal) * c->maxrefusals) :
			repalloc_huge(c->refusals, sizeof(Refusal) * c->maxrefusals);
	}
	r = &c->refusals[c->nrefusals++];
	r->a = e->a;
	r->b = e->b;
	r->key = e->key;
	r->reason = reason;
	r->weight = strength_weight[e->strength] * factor;
}

/*
 * The edges of one key, asserted by n records; pairs that its names keep apart
 * are noted.  A mail or mobile of people with different names is shared by them.
 */
static void
add_edges(Clusters *c, const KeyRef *refs, int n, Edge **edges, int *nedges, int *maxedges)
{
	IdentityKey key = *refs[0].key;
	IdentityStrength strength;
	int			from = *nedges;
	bool		disagree = false;

	for (int i = 1; i < n; i++)
		key.mobile |= refs[i].key->mobile;
	strength = identity_strength(&key);
	if (strength == IS_GENERIC || n > c->policy->max_records)
		return;
	for (int i = 0; i < n; i++)
	{
		for (int j = i + 1; j < n; j++)
		{
			Edge		e;
			int			agree;

			e.a = refs[i].record;
			e.b = refs[j].record;
			e.strength = strength;
			e.key = key.key;
			e.since = Max(refs[i].key->first_version, refs[j].key->first_version);
			if (find(c, e.a) == find(c, e.b))
				continue;
			agree = identity_names_agree(c->nnames[e.a], c->names[e.a], c->nnames[e.b], c->names[e.b]);
			e.named = agree > 0;
			if (agree < 0)
			{
				disagree = true;
				add_apart(c, e.a, e.b, false);
				add_refusal(c, &e, IR_NAMES_DISAGREE, CONTRADICTED_FACTOR);
				continue;
			}
			if (*nedges == *maxedges)
				*edges = repalloc_huge(*edges, sizeof(Edge) * (*maxedges *= 2));
			(*edges)[(*nedges)++] = e;
		}
	}
	if (disagree && strength == IS_PERSONAL)
		strength = IS_SHARED;
	if (strength == IS_SHARED)
	{
		int			kept = from;

		for (int i = from; i < *nedges; i++)
		{
			Edge	   *e = &(*edges)[i];

			e->strength = strength;
			if (e->named)
				(*edges)[kept++] = *e;
			else
				add_refusal(c, e, IR_NAMES_UNKNOWN, UNKNOWN_NAMES_FACTOR);
		}
		*nedges = kept;
	}
}

/* May evidence make two clusters one? */
static bool
may_join(Clusters *c, int ra, int rb, IdentityRefusal *reason)
{
	bool		decided;

	*reason = IR_NAMES_DISAGREE;
	if (is_apart(c, ra, rb, &decided))
		return false;
	*reason = IR_IDS_DIFFER;
	for (int i = ra; i >= 0; i = c->next[i])
		for (int j = rb; j >= 0 && c->nids[i] > 0; j = c->next[j])
			if (c->nids[j] > 0 && ids_differ(c->nids[i], c->ids[i], c->nids[j], c->ids[j]))
				return false;
	*reason = IR_SAME_SOURCE;
	for (int i = ra; i >= 0; i = c->next[i])
		for (int j = rb; j >= 0 && c->rec[i]->alive && !c->rec[i]->many_per_source; j = c->next[j])
			if (c->rec[j]->alive && strview_cmp(c->rec[i]->source, c->rec[j]->source) == 0)
				return false;
	*reason = IR_OVERSIZE;
	return c->size[ra] + c->size[rb] <= c->policy->max_records;
}

static void
apply_evidence(Clusters *c)
{
	KeyRef	   *refs;
	Edge	   *edges;
	int			nrefs = 0;
	int			nedges = 0;
	int			maxedges = 64;

	for (int i = 0; i < c->n; i++)
		nrefs += c->rec[i]->nkeys;
	refs = palloc_extended(sizeof(KeyRef) * Max(nrefs, 1), MCXT_ALLOC_HUGE);
	nrefs = 0;
	for (int i = 0; i < c->n; i++)
	{
		for (int k = 0; k < c->rec[i]->nkeys; k++)
		{
			refs[nrefs].key = &c->rec[i]->keys[k];
			refs[nrefs++].record = i;
		}
	}
	qsort(refs, nrefs, sizeof(KeyRef), keyref_cmp);

	edges = palloc(sizeof(Edge) * maxedges);
	for (int i = 0; i < nrefs;)
	{
		int			end = i + 1;

		while (end < nrefs && strview_cmp(refs[i].key->key, refs[end].key->key) == 0)
			end++;
		if (end - i > 1)
		{
			CHECK_FOR_INTERRUPTS();
			add_edges(c, &refs[i], end - i, &edges, &nedges, &maxedges);
		}
		i = end;
	}
	qsort(edges, nedges, sizeof(Edge), edge_cmp);
	for (int e = 0; e < nedges; e++)
	{
		int			ra = find(c, edges[e].a);
		int			rb = find(c, edges[e].b);
		IdentityRefusal reason;

		if (ra == rb)
			continue;
		if (may_join(c, ra, rb, &reason))
			join(c, ra, rb);
		else
			add_refusal(c, &edges[e], reason,
						reason == IR_NAMES_DISAGREE || reason == IR_IDS_DIFFER ? CONTRADICTED_FACTOR :
						edges[e].named ? 1 : UNKNOWN_NAMES_FACTOR);
	}
	pfree(edges);
	pfree(refs);
}

/* Of two clusters, key by key, the strongest of each first. */
static int
refusal_cmp(const void *a, const void *b)
{
	const Refusal *x = a;
	const Refusal *y = b;
	int			r;

	if (x->ca != y->ca)
		return x->ca - y->ca;
	if (x->cb != y->cb)
		return x->cb - y->cb;
	if ((r = strview_cmp(x->key, y->key)) != 0)
		return r;
	if (x->weight != y->weight)
		return x->weight > y->weight ? -1 : 1;
	return x->a != y->a ? x->a - y->a : x->b != y->b ? x->b - y->b : (int) x->reason - (int) y->reason;
}

/*
 * One refusal for each pair of clusters that are still two and were not decided
 * to be: their keys count as independent evidence, 1 - (1 - w1)(1 - w2)...
 */
static void
collect_refused(Clusters *c, IdentityRecord *records, IdentityRefused **refused, int *nrefused)
{
	int			n = 0;

	*refused = palloc_extended(sizeof(IdentityRefused) * Max(c->nrefusals, 1), MCXT_ALLOC_HUGE);
	*nrefused = 0;
	for (int i = 0; i < c->nrefusals; i++)
	{
		Refusal		r = c->refusals[i];
		int			ra = find(c, r.a);
		int			rb = find(c, r.b);

		if (ra == rb)
			continue;
		r.ca = Min(ra, rb);
		r.cb = Max(ra, rb);
		c->refusals[n++] = r;
	}
	qsort(c->refusals, n, sizeof(Refusal), refusal_cmp);
	for (int i = 0; i < n;)
	{
		const Refusal *best = &c->refusals[i];
		double		rest = 1;
		int			end;
		bool		decided;

		for (end = i; end < n && c->refusals[end].ca == best->ca && c->refusals[end].cb == c->refusals[i].cb; end++)
		{
			const Refusal *r = &c->refusals[end];

			if (end > i && strview_cmp(r->key, c->refusals[end - 1].key) == 0)
				continue;
			rest *= 1 - r->weight;
			if (r->weight > best->weight)
				best = r;
		}
		(void) is_apart(c, c->refusals[i].ca, c->refusals[i].cb, &decided);
		if (!decided)
		{
			IdentityRefused *f = &(*refused)[(*nrefused)++];

			f->a = c->rec[best->a] - records;
			f->b = c->rec[best->b] - records;
			f->key = best->key;
			f->reason = best->reason;
			f->score = 1 - rest;
		}
		i = end;
	}
}

void
identity_cluster(const IdentityPolicy *policy, IdentityRecord *records, int nrecords,
				 IdentityDecision *decisions, int ndecisions,
				 IdentityRefused **refused, int *nrefused)
{
	Clusters	c = {0};
	int			max = Max(nrecords, 1);

	c.policy = policy;
	c.n = nrecords;
	c.rec = palloc(sizeof(*c.rec) * max);
	c.parent = palloc(sizeof(int) * max);
	c.next = palloc(sizeof(int) * max);
	c.last = palloc(sizeof(int) * max);
	c.size = palloc(sizeof(int) * max);
	c.apart = palloc(sizeof(int) * max);
	c.names = palloc(sizeof(StrView *) * max);
	c.nnames = palloc(sizeof(int) * max);
	c.ids = palloc(sizeof(StrView *) * max);
	c.nids = palloc(sizeof(int) * max);
	for (int i = 0; i < nrecords; i++)
	{
		c.rec[i] = &records[i];
		c.parent[i] = c.last[i] = i;
		c.next[i] = c.apart[i] = -1;
		c.size[i] = 1;
	}
	qsort(c.rec, nrecords, sizeof(*c.rec), record_ptr_cmp);

	apply_decisions(&c, decisions, ndecisions);
	apply_source_merges(&c);
	pool_evidence(&c);
	apply_evidence(&c);
	collect_refused(&c, records, refused, nrefused);
	for (int i = 0; i < nrecords; i++)
		c.rec[i]->cluster = c.rec[find(&c, i)] - records;
}
