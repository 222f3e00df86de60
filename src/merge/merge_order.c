/*
 * merge_order.c
 *		The order of the claims on a cell: what each rule prefers, best first.
 *
 * The order is total: after what the rule looks at come the latest change, the
 * source's rank, the record's own key and the value's bytes.
 */
#include "postgres.h"

#include "merge/merge_claims.h"

/* qsort has no argument to pass these through, and sorting does not nest */
static const MergeResolver *sorting;
static const MergeRule *sorting_rule;

/* A source's place in a rule's list, by name before by class; 0 is best. */
int
merge_source_rank(const MergeRule *rule, const MergeInput *in)
{
	for (int i = 0; i < rule->nsources; i++)
		if (strview_cmp(rule->sources[i], in->source) == 0)
			return i;
	for (int i = 0; i < rule->nsources; i++)
		if (in->source_class.len > 0 && strview_cmp(rule->sources[i], in->source_class) == 0)
			return i;
	return rule->nsources;
}

bool
merge_is_excluded(const MergeRule *rule, const MergeInput *in)
{
	return rule->only && merge_source_rank(rule, in) == rule->nsources;
}

int
merge_input_cmp(const MergeInput *a, const MergeInput *b)
{
	int			r = strview_cmp(a->source, b->source);

	return r ? r : strview_cmp(a->source_id, b->source_id);
}

int64
merge_last_modification(const MergeRecord *r)
{
	return r->modified != MERGE_TIME_MIN ? r->modified : r->version;
}

/*
 * The same the other way round: the latest time at which a cell can have got its
 * value.  Of one that was there at first sight that is its record's creation if
 * it is known, else that sight; so adding a source makes nothing look older than
 * it is known to be.
 */
static int64
known_since(const MergeRecord *r, const ContactStamp *stamp)
{
	if ((stamp->flags & CS_ESTIMATE) && r->created == MERGE_TIME_MIN)
		return stamp->changed_at;
	return merge_changed_at(r, stamp);
}

/* A time that is not known is no early one. */
static inline int64
unless_unknown(int64 t)
{
	return t == MERGE_TIME_MIN ? PG_INT64_MAX : t;
}

/* What a source's clear means, by its name before by its class. */
MergeClear
merge_clear_of(const MergeRule *rule, const MergeInput *in)
{
	for (int i = 0; i < rule->nclears; i++)
		if (strview_same(rule->clears[i].source, in->source))
			return rule->clears[i].clear;
	for (int i = 0; i < rule->nclears; i++)
		if (in->source_class.len > 0 && strview_same(rule->clears[i].source, in->source_class))
			return rule->clears[i].clear;
	return rule->clear;
}

/* Add an item of a record's state, or of what it has cleared, to a claim that is being collected. */
void
merge_claim_add(MergeClaim *c, const MergeInput *in, const ContactValue *from, const ContactItem *item)
{
	const ContactStamp *stamp = &from->stamps[item->stamp];

	c->stamps[c->nitems] = stamp;
	c->items[c->nitems++] = item;
	c->derived = (c->nitems == 1 || c->derived) && (stamp->flags & CS_DERIVED);
	c->verified |= (item->flags & CI_VERIFIED) || (stamp->flags & CS_VERIFIED);
	merge_claim_stamp(c, in, stamp);
}

/* Let a stamp count for a claim: of an item, or of the lack of one. */
void
merge_claim_stamp(MergeClaim *c, const MergeInput *in, const ContactStamp *stamp)
{
	c->witnessed |= !(stamp->flags & CS_ESTIMATE);
	c->as_of = Max(c->as_of, stamp->as_of);
	c->changed_at = Max(c->changed_at, merge_changed_at(&in->record, stamp));
	c->known_since = Max(c->known_since, unless_unknown(known_since(&in->record, stamp)));
}

/* ---- what rules count ---- */

/*
 * Do two claims speak for each other?  Values if they are the same, groups if
 * they agree in all members that both have, lists if they have the same elements.
 */
static bool
agree(const MergeClaim *a, const MergeClaim *b)
{
	bool		list = a->nitems > 0 && CF_IS_LIST(a->items[0]->field) && a->items[0]->field != CF_METADATA;
	bool		common = false;
	int			i = 0;
	int			j = 0;

	if (a->nitems == 0 || b->nitems == 0)
		return a->nitems == b->nitems;
	while (i < a->nitems && j < b->nitems)
	{
		int			r = contact_item_cmp(a->items[i], b->items[j]);

		if (r != 0 && list)
			return false;
		if (r == 0 && !list && !contact_item_same(a->items[i], b->items[j]))
			return false;
		common |= r == 0;
		i += r <= 0;
		j += r >= 0;
	}
	return common && (!list || a->nitems == b->nitems);
}

static int
source_cmp(const void *x, const void *y)
{
	const MergeClaim *a = *(const MergeClaim *const *) x;
	const MergeClaim *b = *(const MergeClaim *const *) y;

	return strview_cmp(sorting->inputs[a->input].source, sorting->inputs[b->input].source);
}

/*
 * Each independent source that speaks for a claim has one vote, however many
 * records it has.  Claims that compete and those that can only fill gaps are
 * voted on by their own kind: they are chosen from apart.
 */
void
merge_count_votes(MergeResolver *s)
{
	const MergeClaim **voters = palloc(sizeof(MergeClaim *) * Max(s->nclaims, 1));
	int			n = 0;

	for (int i = 0; i < s->nclaims; i++)
		if ((s->claims[i].verdict == MV_LOST || s->claims[i].verdict == MV_INCOMPLETE) && !s->claims[i].derived)
			voters[n++] = &s->claims[i];
	sorting = s;
	qsort(voters, n, sizeof(MergeClaim *), source_cmp);
	for (int i = 0; i < s->nclaims; i++)
	{
		MergeClaim *c = &s->claims[i];
		StrView		last = {NULL, 0};

		c->votes = 0;
		for (int k = 0; k < n; k++)
		{
			StrView		source = s->inputs[voters[k]->input].source;

			if ((c->verdict == MV_INCOMPLETE) != (voters[k]->verdict == MV_INCOMPLETE))
				continue;
			/* what has no source is a source of its own */
			if ((c->votes > 0 && source.len > 0 && strview_same(source, last)) || !agree(c, voters[k]))
				continue;
			c->votes++;
			last = source;
		}
	}
	pfree(voters);
}

/* How much is said of an item. */
static int
attributes(const ContactItem *item)
{
	int			n = (item->value.len > 0) + (item->type.len > 0) + (item->extension.len > 0) +
		((item->flags & (CI_VERIFIED | CI_UNVERIFIED)) != 0);

	for (int p = 0; p < CA_COUNT && item->field == CF_ADDRESSES; p++)
		n += item->part[p].len > 0;
	return n;
}

/* ---- the order ---- */

/* By what the rule looks at. */
static int
rule_cmp(const MergeClaim *a, const MergeClaim *b)
{
	switch (sorting_rule->kind)
	{
		case MR_SOURCE_PRIORITY:
			return a->rank - b->rank;
		case MR_MOST_FREQUENT:
			return b->votes - a->votes;
		case MR_VERIFIED_FIRST:
			return b->verified - a->verified;
		case MR_OLDEST:
			return (a->known_since > b->known_since) - (a->known_since < b->known_since);
		case MR_MOST_COMPLETE:
			return a->nitems != b->nitems ? b->nitems - a->nitems : b->nattributes - a->nattributes;
		case MR_LAST_WRITE_WINS:
		case MR_MANUAL_REVIEW:
		case MR_UNION:
			return 0;
	}
	return 0;
}

static int
claim_cmp(const void *x, const void *y)
{
	const MergeClaim *a = x;
	const MergeClaim *b = y;
	int			r;

	/* what does not compete goes behind what does */
	if (merge_competes(a) != merge_competes(b))
		return merge_competes(a) ? -1 : 1;
	if ((r = rule_cmp(a, b)) != 0)
		return r;
	if (a->compare_at != b->compare_at)
		return a->compare_at > b->compare_at ? -1 : 1;
	if (a->rank != b->rank)
		return a->rank - b->rank;
	if ((r = merge_input_cmp(&sorting->inputs[a->input], &sorting->inputs[b->input])) != 0)
		return r;
	if ((r = strview_cmp(a->bytes, b->bytes)) != 0)
		return r;
	/* two that say the same, of what is no record with a key of its own: by their stamps */
	if (a->changed_at != b->changed_at)
		return a->changed_at > b->changed_at ? -1 : 1;
	if (a->as_of != b->as_of)
		return a->as_of > b->as_of ? -1 : 1;
	return b->witnessed - a->witnessed;
}

/*
 * Put the collected claims in the order of a rule.  A first sight counts as its
 * estimate, but where nothing was witnessed at all the records' own last
 * modification is the best there is.
 */
void
merge_order(MergeResolver *s, const MergeRule *rule)
{
	bool		any_witnessed[2] = {false, false};

	for (int i = 0; i < s->nclaims; i++)
	{
		MergeClaim *c = &s->claims[i];

		/* its origin stands for it: to be written somewhere lends no claim another rank or recency */
		if (c->derived && (c->verdict == MV_LOST || c->verdict == MV_INCOMPLETE))
			c->verdict = MV_ECHO;
		if (c->verdict == MV_LOST || c->verdict == MV_INCOMPLETE)
			any_witnessed[c->verdict == MV_INCOMPLETE] |= c->witnessed;
	}
	for (int i = 0; i < s->nclaims; i++)
	{
		MergeClaim *c = &s->claims[i];

		c->compare_at = c->changed_at;
		if (!any_witnessed[c->verdict == MV_INCOMPLETE])
		{
			c->compare_at = merge_last_modification(&s->inputs[c->input].record);
			c->known_since = unless_unknown(c->compare_at);
		}
		c->nattributes = 0;
		for (int k = 0; k < c->nitems && rule->kind == MR_MOST_COMPLETE; k++)
			c->nattributes += attributes(c->items[k]);
	}
	if (rule->kind == MR_MOST_FREQUENT || s->explain)
		merge_count_votes(s);
	sorting = s;
	sorting_rule = rule;
	qsort(s->claims, s->nclaims, sizeof(MergeClaim), claim_cmp);
}
