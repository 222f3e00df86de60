/*
 * merge_fold.c
 *		The observations of one record, folded into its state.
 *
 * A cell is a scalar field or one element of a list; a list that was ever
 * covered as a whole has, besides, a marker: a tombstone with an empty key,
 * whose as_of is the list's last coverage.  Each cell's stamp holds the latest
 * version that covered it and the first version of its last run of equals.
 */
#include "postgres.h"

#include "merge/merge.h"

int
merge_version_cmp(const MergeObservation *a, const MergeObservation *b)
{
	if (a->effective != b->effective)
		return a->effective < b->effective ? -1 : 1;
	if (a->raw != b->raw)
		return a->raw < b->raw ? -1 : 1;
	if (a->seq != b->seq)
		return a->seq < b->seq ? -1 : 1;
	/* what we wrote, then what the source shows for it, often with the same stamp */
	return b->written - a->written;
}

int
merge_observation_cmp(const MergeObservation *a, const MergeObservation *b)
{
	int			r;

	/* a base stands for what came before all others */
	if ((a->kind == MK_BASE) != (b->kind == MK_BASE))
		return a->kind == MK_BASE ? -1 : 1;
	r = merge_version_cmp(a, b);
	return r ? r : memcmp(a->digest, b->digest, MERGE_DIGEST_LEN);
}

bool
merge_observation_after(const MergeObservation *o, const MergePosition *p)
{
	if (o->effective != p->effective)
		return o->effective > p->effective;
	return o->raw != p->raw ? o->raw > p->raw : o->seq > p->seq;
}

/* Does another observation of the same version win over the i-th?  obs is sorted. */
bool
merge_overruled(const MergeObservation *obs, int nobs, int i)
{
	int			other = i + 1;

	/* copies of it are no other one */
	while (other < nobs && merge_observation_cmp(&obs[i], &obs[other]) == 0)
		other++;
	return other < nobs && obs[i].kind != MK_BASE && merge_version_cmp(&obs[i], &obs[other]) == 0 &&
		obs[other].kind != MK_DELETE;
}

static int
observation_qsort_cmp(const void *a, const void *b)
{
	return merge_observation_cmp(a, b);
}

static inline bool
is_claim(const MergeObservation *o)
{
	return o->claims.covers != 0 || o->claims.nelements > 0;
}

void
merge_record_init(MergeRecord *r)
{
	memset(r, 0, sizeof(*r));
	r->created = r->deleted_at = r->version = r->modified = MERGE_TIME_MIN;
	r->sightings.seen_at = r->sightings.gone_at = MERGE_TIME_MIN;
	r->last.effective = r->reused.effective = MERGE_TIME_MIN;
}

/* Does the observation speak about this cell? */
static bool
covers(const ContactClaims *claims, ContactField field, StrView key)
{
	ContactValue elements = {0};

	if (claims->covers & CF_BIT(field))
		return true;
	elements.nitems = claims->nelements;
	elements.items = claims->elements;
	return claims->nelements > 0 && contact_find(&elements, field, key) >= 0;
}

/* Put an item with a stamp of its own at the end of a state under construction. */
static void
put_cell(ContactValue *state, const ContactItem *item, StrView source,
		 int64 as_of, int64 changed_at, uint8 flags)
{
	ContactStamp *stamp = &state->stamps[state->nstamps];

	state->items[state->nitems] = *item;
	state->items[state->nitems++].stamp = state->nstamps++;
	stamp->source = source;
	stamp->as_of = as_of;
	stamp->changed_at = changed_at;
	stamp->flags = flags;
}

static ContactItem
tombstone(ContactField field, StrView key)
{
	ContactItem item = {0};

	item.field = field;
	item.flags = CI_TOMBSTONE;
	item.key = key;
	return item;
}

/*
 * What cells held that in the next state are empty or hold what we wrote there.  A
 * policy may have it that a source's clear does not count, and may be changed at any
 * time; and what we displaced is offered again when there is no more reason for it.
 */
static void
keep_cleared(MergeRecord *r, const ContactValue *next, StrView source)
{
	const ContactValue *from[2] = {&r->state, &r->cleared};
	ContactValue kept = {0};

	kept.items = palloc(sizeof(ContactItem) * Max(r->state.nitems + r->cleared.nitems, 1));
	kept.stamps = palloc(sizeof(ContactStamp) * Max(r->state.nitems + r->cleared.nitems, 1));
	for (int k = 0; k < 2; k++)
	{
		for (int i = 0; i < from[k]->nitems; i++)
		{
			ContactItem item = from[k]->items[i];
			const ContactStamp *s = &from[k]->stamps[item.stamp];
			int			at = item.flags & CI_TOMBSTONE ? -1 : contact_find(next, item.field, item.key);
			bool		empty;
			bool		derived;

			if (at < 0 || (s->flags & CS_DERIVED))
				continue;
			empty = (next->items[at].flags & CI_TOMBSTONE) != 0;
			derived = (next->stamps[next->items[at].stamp].flags & CS_DERIVED) != 0;
			/* for as long as the cell stays what made it a former value */
			if (k == 1)
			{
				int			was = contact_find(&r->state, item.field, item.key);

				empty &= was >= 0 && (r->state.items[was].flags & CI_TOMBSTONE);
				derived &= was >= 0 && (r->state.stamps[r->state.items[was].stamp].flags & CS_DERIVED);
			}
			if (!empty && !derived)
				continue;
			/* it is no longer the one that was named last */
			item.flags &= ~CI_PRIMARY;
			put_cell(&kept, &item, source, s->as_of, s->changed_at, s->flags);
		}
	}
	contact_sort(&kept);
	r->cleared = kept;
}

/* Whose claim was written to this cell; a name that is nobody's if that is not known. */
static StrView
origin_of(const MergeObservation *o, ContactField field, StrView key)
{
	StrView		origin = merge_origin_name(strview(NULL, 0), strview(NULL, 0));

	for (int i = 0; i < o->norigins; i++)
	{
		if (o->origins[i].field != field)
			continue;
		if (strview_same(o->origins[i].key, key))
			return o->origins[i].record;
		if (o->origins[i].key.len == 0)
			origin = o->origins[i].record;
	}
	return origin;
}

/*
 * Put a cell whose run of equals begins with this observation: the source's own,
 * or, if we wrote it there, its origin's.
 */
static void
begin_run(ContactValue *next, const MergeObservation *o, const ContactItem *item, StrView source, uint8 flags)
{
	if (o->written)
		put_cell(next, item, origin_of(o, item->field, item->key), o->effective, o->effective, CS_DERIVED);
	else
		put_cell(next, item, source, o->effective, o->effective, flags);
}

/*
 * A source that keeps the history of its fields knows since when a cell is as it is:
 * that takes the place of an estimate.  It was not after it was seen.
 */
static void
date_estimate(const MergeObservation *o, ContactStamp *stamp, const ContactItem *item)
{
	const struct MergeChange *change = NULL;

	if (!(stamp->flags & CS_ESTIMATE) || (stamp->flags & CS_DERIVED))
		return;
	for (int i = 0; i < o->nchanges; i++)
	{
		if (o->changes[i].field != item->field ||
			(o->changes[i].key.len > 0 && !strview_same(o->changes[i].key, item->key)))
			continue;
		/* of the element rather than of its list */
		if (change == NULL || o->changes[i].key.len > 0)
			change = &o->changes[i];
	}
	if (change == NULL)
		return;
	stamp->changed_at = Min(change->at, stamp->changed_at);
	stamp->flags &= ~CS_ESTIMATE;
}

/* Does a claim on a cell go on with the run of equals that the cell has? */
static bool
goes_on(const ContactItem *old, const ContactStamp *stamp, const ContactItem *new, bool written)
{
	if (contact_item_same(old, new))
		return true;
	return ((stamp->flags & CS_DERIVED) || written) && merge_echoes(old, new);
}

/* One observation's claims on top of a state: what each cell is then. */
static void
apply(MergeRecord *r, const MergeObservation *o, StrView source)
{
	const ContactValue *state = &r->state;
	const ContactValue *said = &o->claims.value;
	const StrView nokey = {NULL, 0};
	bool		first_sight = o->kind != MK_PATCH;
	bool		known[CF_COUNT] = {false};
	ContactValue next = {0};
	ContactItem *unsorted;
	bool		cleared = r->cleared.nitems > 0;
	int			max = state->nitems + said->nitems + o->claims.nelements + CF_COUNT;
	int			i = 0;
	int			j = 0;

	next.items = palloc(sizeof(ContactItem) * max);
	next.stamps = palloc(sizeof(ContactStamp) * max);

	/* a scalar cell, or a list's marker: was the field spoken about before? */
	for (int k = 0; k < state->nitems; k++)
		if (state->items[k].key.len == 0)
			known[state->items[k].field] = true;

	/* both are sorted: walk them together */
	while (i < state->nitems || j < said->nitems)
	{
		const ContactItem *old = i < state->nitems ? &state->items[i] : NULL;
		const ContactItem *new = j < said->nitems ? &said->items[j] : NULL;
		int			c = !old ? 1 : !new ? -1 : contact_item_cmp(old, new);

		if (c < 0)
		{
			const ContactStamp *s = &state->stamps[old->stamp];

			i++;
			if (!covers(&o->claims, old->field, old->key))
				put_cell(&next, old, s->source, s->as_of, s->changed_at, s->flags);
			else if (old->flags & CI_TOMBSTONE)
				put_cell(&next, old, s->source, o->effective, s->changed_at, s->flags);
			else
			{
				ContactItem gone = tombstone(old->field, old->key);

				begin_run(&next, o, &gone, source, 0);
				cleared = true;
			}
		}
		else if (c == 0 && goes_on(old, &state->stamps[old->stamp], new, o->written))
		{
			const ContactStamp *s = &state->stamps[old->stamp];

			/* spelled as we wrote it, however it is given back */
			put_cell(&next, o->written ? new : old, s->source, o->effective, s->changed_at, s->flags);
			i++;
			j++;
		}
		else
		{
			begin_run(&next, o, new, source,
					  c > 0 && first_sight && !known[new->field] ? CS_ESTIMATE : 0);
			cleared |= c == 0 && o->written;
			if (c == 0)
				i++;
			j++;
		}
	}

	/* what is covered and was never there: empty since first sight */
	for (int f = 0; f < CF_COUNT; f++)
	{
		ContactItem gone = tombstone(f, nokey);

		if ((o->claims.covers & CF_BIT(f)) && !known[f] &&
			(CF_IS_LIST(f) || contact_find(said, f, nokey) < 0))
			begin_run(&next, o, &gone, source, first_sight ? CS_ESTIMATE : 0);
	}
	for (int k = 0; k < o->claims.nelements; k++)
	{
		const ContactItem *e = &o->claims.elements[k];
		ContactItem gone = tombstone(e->field, e->key);
		int			marker = contact_find(state, e->field, nokey);

		if (!(e->flags & CI_TOMBSTONE) || contact_find(state, e->field, e->key) >= 0)
			continue;
		/* it was not there either when the whole list was first covered */
		if (marker >= 0 && !o->written)
		{
			const ContactStamp *s = &state->stamps[state->items[marker].stamp];

			put_cell(&next, &gone, source, o->effective, s->changed_at, s->flags);
		}
		else
			begin_run(&next, o, &gone, source, first_sight ? CS_ESTIMATE : 0);
	}

	/* a list has one primary: the one named last */
	for (int k = 0; k < said->nitems; k++)
	{
		if (!(said->items[k].flags & CI_PRIMARY))
			continue;
		for (int n = 0; n < next.nitems; n++)
			if (next.items[n].field == said->items[k].field &&
				strview_cmp(next.items[n].key, said->items[k].key) != 0)
				next.items[n].flags &= ~CI_PRIMARY;
	}
	/* of what it speaks about, since it does so now */
	for (int n = 0; n < next.nitems && o->nchanges > 0; n++)
		if (covers(&o->claims, next.items[n].field, next.items[n].key))
			date_estimate(o, &next.stamps[next.items[n].stamp], &next.items[n]);
	unsorted = next.items;
	contact_sort(&next);
	/* which had room for all that might have come */
	if (next.items != unsorted)
		pfree(unsorted);
	if (cleared)
		keep_cleared(r, &next, source);
	r->state = next;
}

static int
element_cmp(const void *a, const void *b)
{
	return contact_item_cmp(a, b);
}

static bool
coverage_has(uint32 fields, const ContactItem *elements, int nelements, const ContactItem *e)
{
	return (fields & CF_BIT(e->field)) != 0 ||
		bsearch(e, elements, nelements, sizeof(ContactItem), element_cmp) != NULL;
}

/*
 * A snapshot may cover less than those before it, as when a permission was
 * revoked.  That clears nothing, but must not go unseen.
 */
static void
note_coverage(MergeRecord *r, const ContactClaims *said)
{
	MergeCoverage *all = &r->covered;
	MergeCoverage *missing = &r->uncovered;
	ContactItem *elements;
	int			n = 0;

	/* the usual case: as ever */
	if (all->nelements == 0 && said->nelements == 0)
	{
		all->fields |= said->covers;
		missing->fields = all->fields & ~said->covers;
		missing->nelements = 0;
		return;
	}
	elements = palloc0(sizeof(ContactItem) * (all->nelements + said->nelements));
	all->fields |= said->covers;
	for (int i = 0; i < all->nelements; i++)
		if (!coverage_has(all->fields, NULL, 0, &all->elements[i]))
			elements[n++] = all->elements[i];
	for (int i = 0; i < said->nelements; i++)
	{
		const ContactItem *e = &said->elements[i];

		if (coverage_has(all->fields, all->elements, all->nelements, e))
			continue;
		elements[n].field = e->field;
		elements[n++].key = e->key;
	}
	qsort(elements, n, sizeof(ContactItem), element_cmp);
	all->elements = elements;
	all->nelements = n;

	missing->fields = all->fields & ~said->covers;
	missing->elements = palloc(sizeof(ContactItem) * Max(n, 1));
	missing->nelements = 0;
	for (int i = 0; i < n; i++)
		if (!coverage_has(said->covers, said->elements, said->nelements, &elements[i]))
			missing->elements[missing->nelements++] = elements[i];
}

/* Add what a live observation says to the record. */
static void
add_claims(MergeRecord *r, const MergeObservation *o, StrView source)
{
	if (o->kind == MK_BASE)
	{
		r->created = o->base->created;
		r->version = o->base->version;
		r->modified = o->base->modified;
		r->same_version_conflicts += o->base->same_version_conflicts;
		r->covered = o->base->covered;
		r->uncovered = o->base->uncovered;
		r->cleared = o->base->cleared;
		r->state = o->claims.value;
		return;
	}
	if (o->created != MERGE_TIME_MIN &&
		(r->created == MERGE_TIME_MIN || o->created < r->created))
		r->created = o->created;
	r->version = o->effective;
	/* nobody modified it after it was read; and that we did is no news */
	if (!o->written)
		r->modified = o->modified == MERGE_TIME_MIN ? MERGE_TIME_MIN : Min(o->modified, o->effective);
	if (!is_claim(o))
		return;
	if (o->kind != MK_PATCH)
		note_coverage(r, &o->claims);
	apply(r, o, source);
}

static void
set_position(MergePosition *p, const MergeObservation *o)
{
	p->effective = o->effective;
	p->raw = o->raw;
	p->seq = o->seq;
	memcpy(p->digest, o->digest, MERGE_DIGEST_LEN);
}

/* Whether the record lived does not matter: what it once asserted stays evidence. */
void
merge_keep_own_claims(MergeObservation *obs, int nobs, StrView source)
{
	MergeRecord r;

	merge_record_init(&r);
	for (int i = 0; i < nobs; i++)
	{
		if (obs[i].kind == MK_DELETE)
			continue;
		if (!merge_overruled(obs, nobs, i))
			add_claims(&r, &obs[i], source);
		if (obs[i].kind != MK_BASE)
			obs[i].claims.value = merge_own_claims(&r.state, &obs[i].claims.value);
	}
}

bool
merge_fold_step(MergeRecord *r, const MergeObservation *o, StrView source)
{
	bool		first = r->last.effective == MERGE_TIME_MIN;

	/* what comes after a delete may decide what is left of the time before it */
	if ((o->kind != MK_SNAPSHOT && o->kind != MK_PATCH) || (!first && !r->alive) ||
		r->deleted_at != MERGE_TIME_MIN)
		return false;
	if (!first && !merge_observation_after(o, &r->last))
		return false;
	r->alive = true;
	add_claims(r, o, source);
	set_position(&r->last, o);
	return true;
}

/* Is an observation proof of life, newer than a delete? */
static bool
revives(const MergeObservation *o, const MergeObservation *delete)
{
	return o->kind != MK_DELETE &&
		(o->created > delete->effective || (o->kind == MK_UNDELETE && merge_version_cmp(o, delete) > 0));
}

int
merge_drop_refuted(MergeObservation *obs, int nobs, MergeSightings sightings)
{
	MergeObservation *refuted;
	MergeObservation shown = {0};
	bool		any = false;
	int			n = 0;
	int			nrefuted = 0;

	for (int i = 0; i < nobs; i++)
		nrefuted += obs[i].inferred;
	if (nrefuted == 0)
		return nobs;
	refuted = palloc_extended(sizeof(MergeObservation) * nrefuted, MCXT_ALLOC_HUGE);
	nrefuted = 0;
	for (int i = 0; i < nobs; i++)
	{
		if (obs[i].kind != MK_SNAPSHOT || (any && merge_version_cmp(&obs[i], &shown) <= 0))
			continue;
		shown = obs[i];
		any = true;
	}
	for (int i = 0; i < nobs; i++)
	{
		if (obs[i].kind == MK_DELETE && obs[i].inferred &&
			(sightings.seen_at > obs[i].effective || (any && merge_version_cmp(&shown, &obs[i]) > 0)))
			refuted[nrefuted++] = obs[i];
		else
			obs[n++] = obs[i];
	}
	memcpy(obs + n, refuted, sizeof(MergeObservation) * nrefuted);
	pfree(refuted);
	return n;
}

/*
 * Does the state start after the i-th observation, which is a delete, unless it
 * starts after a later one?  A proof of life without content of its own takes back
 * what the delete before it had removed: a bare undelete, and for the newest delete,
 * which is the one that the newest sighting speaks of, that.  Any other starts
 * afresh; a delete of what is dead already removes nothing.  Where the proof is a
 * later creation, the id was given to a new record: reused.
 */
bool
merge_starts_after(const MergeObservation *obs, int nobs, int i, bool sighted, bool *reused)
{
	const MergeObservation *d = &obs[i];
	bool		restored = false;
	bool		content = false;
	bool		revived = false;
	int			next;

	/* what bears the delete's own version comes before it */
	for (next = i + 1; next < nobs; next++)
	{
		if (merge_version_cmp(&obs[next], d) == 0)
			continue;
		if (obs[next].kind == MK_DELETE)
			break;
		content |= is_claim(&obs[next]);
		restored |= obs[next].kind == MK_UNDELETE && !is_claim(&obs[next]);
	}
	restored |= next == nobs && sighted && !content;
	*reused = false;
	for (int k = 0; k < next; k++)
	{
		revived |= revives(&obs[k], d);
		*reused |= obs[k].kind != MK_DELETE && obs[k].created > d->effective;
	}
	return !restored && (revived || next == nobs);
}

/* The delete that the state starts after, or NULL if nothing is lost. */
static const MergeObservation *
start_of_state(const MergeObservation *obs, int nobs, bool sighted, MergePosition *reused)
{
	const MergeObservation *start = NULL;
	bool		again;

	for (int i = 0; i < nobs; i++)
	{
		if (obs[i].kind != MK_DELETE || !merge_starts_after(obs, nobs, i, sighted, &again))
			continue;
		start = &obs[i];
		if (again)
			set_position(reused, start);
	}
	return start;
}

void
merge_fold(MergeObservation *obs, int nobs, MergeSightings sightings, StrView source, MergeRecord *r)
{
	const MergeObservation *start;
	const MergeObservation *newest = NULL;	/* delete */
	bool		sighted;
	bool		any = false;

	merge_record_init(r);
	r->sightings = sightings;
	if (nobs == 0)
		return;
	qsort(obs, nobs, sizeof(MergeObservation), observation_qsort_cmp);
	if (obs[nobs - 1].kind == MK_BASE)
		r->last = obs[nobs - 1].base->last;
	else
		set_position(&r->last, &obs[nobs - 1]);
	nobs = merge_drop_refuted(obs, nobs, sightings);

	for (int i = 0; i < nobs; i++)
		if (obs[i].kind == MK_DELETE)
			newest = &obs[i];
	if (newest)
		r->deleted_at = newest->effective;
	sighted = sightings.seen_at > Max(r->deleted_at, sightings.gone_at);
	r->alive = newest == NULL || sighted;
	for (int i = 0; i < nobs && !r->alive; i++)
		r->alive = revives(&obs[i], newest);
	start = start_of_state(obs, nobs, sighted, &r->reused);
	/* a merge at the source holds until there is proof that it was taken back */
	if (!r->alive)
	{
		const MergeObservation *merged = NULL;

		for (int i = 0; i < nobs; i++)
		{
			if (obs[i].kind == MK_DELETE && obs[i].into.len > 0)
				merged = &obs[i];
			else if (merged && revives(&obs[i], merged))
				merged = NULL;
		}
		if (merged)
			r->merged_into = merged->into;
	}

	for (int i = 0; i < nobs; i++)
	{
		bool		duplicate = i > 0 && merge_observation_cmp(&obs[i - 1], &obs[i]) == 0;

		if (obs[i].kind == MK_DELETE || duplicate ||
			(start && merge_version_cmp(&obs[i], start) <= 0))
			continue;
		any = true;
		/* of two that bear one version the larger wins as a whole */
		if (merge_overruled(obs, nobs, i))
			r->same_version_conflicts++;
		else if (r->alive)
			add_claims(r, &obs[i], source);
	}
	r->zombie = !r->alive && any;
}

int64
merge_changed_at(const MergeRecord *r, const ContactStamp *stamp)
{
	/* a derived claim has its origin's time already */
	if (!(stamp->flags & CS_ESTIMATE) || (stamp->flags & CS_DERIVED))
		return stamp->changed_at;
	if (r->created == MERGE_TIME_MIN)
		return MERGE_TIME_MIN;
	return Min(r->created, stamp->changed_at);
}
