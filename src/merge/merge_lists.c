/*
 * merge_lists.c
 *		Lists: the union of their elements or the list of one record, and the
 *		element that is primary.
 */
#include "postgres.h"

#include "merge/merge_claims.h"

/* Collect each record's list as a whole; the best one's input, or -1 if there is none. */
static int
best_list(MergeResolver *s, ContactField field)
{
	s->nclaims = 0;
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		const ContactValue *state = &in->record.state;
		const ContactValue *before = &in->record.cleared;
		MergeClear	clear = merge_clear_of(s->rule, in);
		MergeClaim *c = merge_claim_init(s, i, Max(state->nitems, 1));

		if (!in->record.alive || merge_is_excluded(s->rule, in))
			continue;
		for (int k = 0; k < state->nitems; k++)
		{
			const ContactItem *item = &state->items[k];
			int			was;

			/* that the list was covered is no change */
			if (item->field != field || item->key.len == 0)
				continue;
			if (!(item->flags & CI_TOMBSTONE))
				merge_claim_add(c, in, state, item);
			else if (clear != ML_IGNORE)
				merge_claim_stamp(c, in, &state->stamps[item->stamp]);
			else if ((was = contact_find(before, field, item->key)) >= 0)
				merge_claim_add(c, in, before, &before->items[was]);
		}
		if (c->nitems == 0 && !(clear == ML_AUTHORITATIVE && merge_claim_empty_list(c, in, field)))
			continue;
		c->bytes = merge_claim_bytes(c->items, c->nitems);
		c->verdict = MV_LOST;
		s->nclaims++;
	}
	merge_order(s, s->rule);
	return s->nclaims > 0 ? s->claims[0].input : -1;
}

/* The element among those resolved that records call primary, by the rule for that; -1 = none. */
static int
claimed_primary(MergeResolver *s, ContactField field, int from)
{
	const ContactValue *v = &s->result->contact;

	s->rule = &s->policy->primary[field];
	s->nclaims = 0;
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		const ContactValue *state = &in->record.state;

		if (!in->record.alive || merge_is_excluded(s->rule, in))
			continue;
		for (int k = 0; k < state->nitems; k++)
		{
			MergeClaim *c;
			bool		there = false;

			if (state->items[k].field != field || !(state->items[k].flags & CI_PRIMARY))
				continue;
			for (int e = from; e < v->nitems; e++)
				there |= strview_cmp(v->items[e].key, state->items[k].key) == 0;
			if (!there)
				continue;
			c = merge_claim_init(s, i, 1);
			merge_claim_add(c, in, state, &state->items[k]);
			c->bytes = merge_claim_bytes(c->items, c->nitems);
			c->verdict = MV_LOST;
			s->nclaims++;
			break;
		}
	}
	merge_order(s, s->rule);
	for (int e = from; e < v->nitems && s->nclaims > 0; e++)
		if (strview_cmp(v->items[e].key, s->claims[0].items[0]->key) == 0)
			return e;
	return -1;
}

/* The one primary of a list's resolved elements. */
static void
choose_primary(MergeResolver *s, ContactField field, int from)
{
	ContactValue *v = &s->result->contact;
	int			best = -1;

	/* what was decided, the latest first */
	for (int e = from; e < v->nitems; e++)
	{
		const ContactStamp *stamp = &v->stamps[v->items[e].stamp];

		if ((stamp->flags & CS_OVERRIDDEN) && (v->items[e].flags & CI_PRIMARY) &&
			(best < 0 || stamp->changed_at > v->stamps[v->items[best].stamp].changed_at))
			best = e;
	}
	if (best < 0)
		best = claimed_primary(s, field, from);
	/* nobody says so: verified, oldest, key */
	for (int e = from; best < 0 && e < v->nitems; e++)
	{
		int			b = from;

		for (int k = from + 1; k < v->nitems; k++)
		{
			const ContactItem *x = &v->items[k];
			const ContactItem *y = &v->items[b];
			int64		xt = v->stamps[x->stamp].changed_at;
			int64		yt = v->stamps[y->stamp].changed_at;

			if ((x->flags & CI_VERIFIED) != (y->flags & CI_VERIFIED))
			{
				if (x->flags & CI_VERIFIED)
					b = k;
			}
			else if (xt < yt || (xt == yt && strview_cmp(x->key, y->key) < 0))
				b = k;
		}
		best = b;
	}
	for (int e = from; e < v->nitems; e++)
	{
		v->items[e].flags &= ~CI_PRIMARY;
		if (e == best)
			v->items[e].flags |= CI_PRIMARY;
	}
}

static int
key_cmp(const void *a, const void *b)
{
	return strview_cmp(*(const StrView *) a, *(const StrView *) b);
}

/* Sort keys and drop those that repeat; returns how many are left. */
int
merge_unique_keys(StrView *keys, int n)
{
	int			m = 0;

	qsort(keys, n, sizeof(StrView), key_cmp);
	for (int i = 0; i < n; i++)
		if (m == 0 || strview_cmp(keys[m - 1], keys[i]) != 0)
			keys[m++] = keys[i];
	return m;
}

/* The distinct keys that any record has in a list, sorted. */
int
merge_list_keys(MergeResolver *s, ContactField field, StrView **keys)
{
	int			n = 0;
	int			max = 0;

	for (int i = 0; i < s->ninputs; i++)
		max += s->inputs[i].record.state.nitems;
	*keys = palloc(sizeof(StrView) * Max(max, 1));
	for (int i = 0; i < s->ninputs; i++)
	{
		const ContactValue *state = &s->inputs[i].record.state;

		for (int k = 0; s->inputs[i].record.alive && k < state->nitems; k++)
			if (state->items[k].field == field && state->items[k].key.len > 0)
				(*keys)[n++] = state->items[k].key;
	}
	return merge_unique_keys(*keys, n);
}

/* The keys that decisions name in a list, after those that records have; n is how many there are then. */
int
merge_decided_keys(MergeResolver *s, ContactField field, const MergeDecision *whole, StrView **keys, int n)
{
	int			max = n + s->ndecisions + (whole ? whole->nitems : 0);

	*keys = repalloc(*keys, sizeof(StrView) * Max(max, 1));
	for (int i = 0; i < s->ndecisions; i++)
		if (s->decisions[i].field == field && s->decisions[i].key.len > 0)
			(*keys)[n++] = s->decisions[i].key;
	for (int i = 0; whole && i < whole->nitems; i++)
		(*keys)[n++] = whole->items[i].key;
	return merge_unique_keys(*keys, n);
}

/* What a decision on the whole list says of one element of it. */
static const MergeDecision *
of_element(const MergeDecision *whole, StrView key)
{
	MergeDecision *d = palloc(sizeof(MergeDecision));

	*d = *whole;
	d->key = key;
	d->of_list = true;
	d->cleared = true;
	d->nitems = 0;
	for (int i = 0; i < whole->nitems && !whole->cleared; i++)
	{
		if (strview_cmp(whole->items[i].key, key) != 0)
			continue;
		d->cleared = false;
		d->nitems = 1;
		d->items = &whole->items[i];
	}
	return d;
}

/*
 * The decision that an element stands or falls by.  A tombstone falls to an
 * assertion that is later than itself; a list that was decided whole stays so.
 */
static const MergeDecision *
element_decision(MergeResolver *s, ContactField field, StrView key, const MergeDecision *whole)
{
	const MergeDecision *d = merge_decision_for(s, field, false, key);

	if (d && merge_has_fallen(s, d))
		d = NULL;
	if (whole && (d == NULL || merge_decided_later(whole, d)))
		return of_element(whole, key);
	return d;
}

void
merge_resolve_list(MergeResolver *s, const MergeUnit *unit)
{
	const MergeRule *rule = &unit->rule;
	ContactField field = unit->lead;
	const MergeDecision *decided = merge_decision_for(s, field, false, nokey);
	int			from = s->result->contact.nitems;
	StrView    *keys;
	int			nkeys;
	int			whole = -1;

	s->rule = rule;
	nkeys = merge_list_keys(s, field, &keys);
	if (s->ndecisions > 0)
		nkeys = merge_decided_keys(s, field, decided, &keys, nkeys);
	if (decided)
	{
		/* as a whole it can only stand against another one */
		s->nclaims = 0;
		merge_question(s, field, false, nokey, decided);
		if (merge_is_parted(s, decided))
			decided = NULL;
	}
	if (rule->kind != MR_UNION)
		whole = best_list(s, field);
	for (int k = 0; k < nkeys; k++)
	{
		const MergeDecision *decision;
		bool		verified = false;
		int			live = -1;

		merge_collect(s, CF_BIT(field), keys[k], field);
		decision = element_decision(s, field, keys[k], decided);
		if (decision && merge_is_parted(s, decision))
		{
			merge_question(s, field, false, keys[k], decision);
			merge_collect(s, CF_BIT(field), keys[k], field);
			/* one question an element is enough */
			decision = decided ? of_element(decided, keys[k]) : NULL;
		}
		else if (decision)
			merge_question(s, field, false, keys[k], decision);
		if (decision)
		{
			merge_decide(s, decision);
			merge_explain_claims(s, field, keys[k], decision);
			continue;
		}
		for (int i = 0; i < s->nclaims; i++)
		{
			MergeClaim	   *c = &s->claims[i];

			if (!merge_competes(c))
				continue;
			if (c->nitems == 0)
			{
				/* the latest word of a union is that it is not there */
				if (rule->kind == MR_UNION ? i == 0 : c->input == whole)
					c->verdict = MV_WON;
				if (rule->kind == MR_UNION && i == 0)
					break;
				continue;
			}
			/* what we wrote there ourselves confirms nothing */
			verified |= c->verified && !c->derived;
			if (rule->kind != MR_UNION)
			{
				if (c->input != whole)
					continue;
				c->verdict = MV_WON;
			}
			else
				c->verdict = MV_UNITED;
			if (live < 0)
				live = i;
		}
		if (live >= 0)
		{
			ContactValue *v = &s->result->contact;

			merge_emit_claim_item(s, &s->claims[live], 0);
			if (verified)
			{
				v->items[v->nitems - 1].flags &= ~CI_UNVERIFIED;
				v->items[v->nitems - 1].flags |= CI_VERIFIED;
			}
		}
		merge_explain_claims(s, field, keys[k], NULL);
	}
	if (field == CF_EMAILS || field == CF_PHONES)
		choose_primary(s, field, from);
	pfree(keys);
}
