/*
 * merge_lists.c
 *		Lists: the union of their elements or the list of one record, and the
 *		element that is primary.
 */
#include "postgres.h"

#include "merge/merge_claims.h"

/* Order in which a list that is taken whole is chosen: by its latest change. */
static int
best_list(MergeResolver *s, ContactField field)
{
	int			best = -1;
	int			best_rank = 0;
	int64		best_at = 0;
	bool		any_witnessed = false;
	bool	   *competes = palloc0(sizeof(bool) * s->ninputs);
	int64	   *changed_at = palloc(sizeof(int64) * s->ninputs);

	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		bool		witnessed = false;

		changed_at[i] = MERGE_TIME_MIN;
		if (!in->record.alive ||
			(s->rule->only && merge_source_rank(s->rule, in) == s->rule->nsources))
			continue;
		for (int k = 0; k < in->record.state.nitems; k++)
		{
			const ContactItem *item = &in->record.state.items[k];
			const ContactStamp *stamp = &in->record.state.stamps[item->stamp];

			/* that the list was covered is no change */
			if (item->field != field || item->key.len == 0)
				continue;
			competes[i] |= !(item->flags & CI_TOMBSTONE);
			witnessed |= !(stamp->flags & CS_ESTIMATE);
			changed_at[i] = Max(changed_at[i], merge_changed_at(&in->record, stamp));
		}
		any_witnessed |= witnessed && competes[i];
	}
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		int			rank = merge_source_rank(s->rule, in);
		/* recency as in merge_collect() */
		int64		at = any_witnessed ? changed_at[i] : merge_last_modification(&in->record);

		if (!competes[i])
			continue;
		if (best >= 0)
		{
			if (s->rule->kind == MR_SOURCE_PRIORITY && rank != best_rank)
			{
				if (rank > best_rank)
					continue;
			}
			else if (at != best_at)
			{
				if (at < best_at)
					continue;
			}
			else if (rank != best_rank)
			{
				if (rank > best_rank)
					continue;
			}
			else if (merge_input_cmp(in, &s->inputs[best]) > 0)
				continue;
		}
		best = i;
		best_rank = rank;
		best_at = at;
	}
	return best;
}

/* The one primary of a list's resolved elements. */
static void
choose_primary(MergeResolver *s, ContactField field, int from)
{
	ContactValue *v = &s->result->contact;
	const MergeRule *rule = &s->policy->primary[field];
	int			decided = -1;
	int			best = -1;
	int			best_input = 0;
	int			best_rank = 0;
	int64		best_at = 0;
	bool		any_witnessed = false;
	int		   *claimed = palloc(sizeof(int) * s->ninputs);
	const ContactStamp **stamps = palloc(sizeof(ContactStamp *) * s->ninputs);

	/* which element does each record claim to be primary? */
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];

		claimed[i] = -1;
		if (!in->record.alive || (rule->only && merge_source_rank(rule, in) == rule->nsources))
			continue;
		for (int k = 0; k < in->record.state.nitems; k++)
		{
			const ContactItem *item = &in->record.state.items[k];

			if (item->field != field || !(item->flags & CI_PRIMARY))
				continue;
			for (int e = from; e < v->nitems; e++)
				if (strview_cmp(v->items[e].key, item->key) == 0)
					claimed[i] = e;
			stamps[i] = &in->record.state.stamps[item->stamp];
			any_witnessed |= claimed[i] >= 0 && !(stamps[i]->flags & CS_ESTIMATE);
		}
	}
	/* what was decided, the latest first */
	for (int e = from; e < v->nitems; e++)
	{
		const ContactStamp *stamp = &v->stamps[v->items[e].stamp];

		if ((stamp->flags & CS_OVERRIDDEN) && (v->items[e].flags & CI_PRIMARY) &&
			(decided < 0 || stamp->changed_at > v->stamps[v->items[decided].stamp].changed_at))
			decided = e;
	}
	best = decided;
	/* the rule decides among them */
	for (int i = 0; i < s->ninputs && decided < 0; i++)
	{
		const MergeInput *in = &s->inputs[i];
		int			rank = merge_source_rank(rule, in);
		int64		at;

		if (claimed[i] < 0)
			continue;
		/* recency as in merge_collect() */
		at = any_witnessed ? merge_changed_at(&in->record, stamps[i]) : merge_last_modification(&in->record);
		if (best >= 0)
		{
			int			r = 0;

			if (rule->kind == MR_SOURCE_PRIORITY)
				r = rank - best_rank;
			if (r == 0)
				r = at > best_at ? -1 : at < best_at;
			if (r == 0)
				r = rank - best_rank;
			if (r == 0)
				r = merge_input_cmp(in, &s->inputs[best_input]);
			if (r >= 0)
				continue;
		}
		best = claimed[i];
		best_input = i;
		best_rank = rank;
		best_at = at;
	}
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

	if (whole && (d == NULL || merge_decided_later(whole, d)))
		return of_element(whole, key);
	for (int i = 0; d && d->cleared && i < s->nclaims; i++)
		if (merge_competes(&s->claims[i]) && s->claims[i].changed_at > d->decided_at)
			return NULL;
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
		if (decision)
		{
			/* a tombstone is not stale: it falls */
			if (!decision->cleared || decision->id == (decided ? decided->id : 0))
				merge_question(s, field, false, keys[k], decision);
			merge_decide(s, decision);
			merge_explain_claims(s, field, keys[k], decision);
			continue;
		}
		for (int i = 0; i < s->nclaims; i++)
		{
			MergeClaim	   *c = &s->claims[i];

			if (!merge_competes(c))
				continue;
			verified |= (c->items[0]->flags & CI_VERIFIED) != 0;
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

			merge_emit_claim_item(s, &s->claims[live], s->claims[live].items[0]);
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
