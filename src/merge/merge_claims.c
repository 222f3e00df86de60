/*
 * merge_claims.c
 *		The claims on a cell: what each record says of it, and what is shown of that.
 *
 * A claim on a group is the whole group, on a list one element, or the whole list.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "merge/merge_claims.h"

/* The content of a claim as bytes: of all its items, without primary flags. */
StrView
merge_claim_bytes(const ContactItem **items, int nitems)
{
	StrView		result = {NULL, 0};
	char	   *buf;

	for (int i = 0; i < nitems; i++)
	{
		ContactItem item = *items[i];
		StrView		bytes;

		item.flags &= ~CI_PRIMARY;
		bytes = contact_item_bytes(&item);
		if (nitems == 1)
			return bytes;
		buf = palloc(result.len + bytes.len);
		memcpy(buf, result.ptr ? result.ptr : "", result.len);
		memcpy(buf + result.len, bytes.ptr, bytes.len);
		result.ptr = buf;
		result.len += bytes.len;
	}
	return result;
}

/* Names what a decision has seen: who claimed what. */
void
merge_claim_digest(const MergeResolver *s, const MergeClaim *c, uint8 *digest)
{
	const MergeInput *in = &s->inputs[c->input];
	StrView		parts[3] = {in->source, in->source_id, c->bytes};
	uint64		h[2] = {0, 1};

	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 2; k++)
			h[k] = hash_combine64(h[k], hash_bytes_extended((const unsigned char *) (parts[i].ptr ? parts[i].ptr : ""),
															parts[i].len, h[k] + i));
	memcpy(digest, h, MERGE_DIGEST_LEN);
}

/* ---- output ---- */

/* Add an item to the contact, stamped by its record or by a decision. */
void
merge_emit(MergeResolver *s, const ContactItem *item, StrView source, int64 as_of, int64 changed_at, uint8 flags)
{
	ContactValue *v = &s->result->contact;

	if (v->nitems == s->maxitems)
	{
		s->maxitems *= 2;
		v->items = repalloc(v->items, sizeof(ContactItem) * s->maxitems);
		v->stamps = repalloc(v->stamps, sizeof(ContactStamp) * s->maxitems);
	}
	v->items[v->nitems] = *item;
	v->items[v->nitems++].stamp = v->nstamps;
	v->stamps[v->nstamps].source = source;
	v->stamps[v->nstamps].as_of = as_of;
	v->stamps[v->nstamps].changed_at = changed_at;
	v->stamps[v->nstamps++].flags = flags;
}

void
merge_emit_claim_item(MergeResolver *s, const MergeClaim *c, int k)
{
	const MergeRecord *r = &s->inputs[c->input].record;
	const ContactStamp *stamp = c->stamps[k];

	merge_emit(s, c->items[k], s->inputs[c->input].source, stamp->as_of,
		 merge_changed_at(r, stamp), stamp->flags);
}

static MergeCandidate *
add_candidate(MergeResolver *s, ContactField field, StrView key)
{
	MergeResult *result = s->result;
	MergeCandidate *out;

	if (result->ncandidates == s->maxcandidates)
	{
		s->maxcandidates = Max(64, s->maxcandidates * 2);
		result->candidates = result->candidates ?
			repalloc(result->candidates, sizeof(MergeCandidate) * s->maxcandidates) :
			palloc(sizeof(MergeCandidate) * s->maxcandidates);
	}
	out = &result->candidates[result->ncandidates++];
	memset(out, 0, sizeof(*out));
	out->field = field;
	out->key = key;
	out->rule = s->rule;
	return out;
}

static bool
decided_by_itself(const MergeResolver *s, ContactField member)
{
	const MergeDecision *d = merge_member_decision(s, member);

	return d && !merge_is_parted(s, d);
}

/* A decided value that nobody claims stands before the claims. */
static void
explain_decision(MergeResolver *s, ContactField field, StrView key, const MergeDecision *decision)
{
	int			n = decision->cleared ? 0 : decision->nitems;

	for (int k = 0; k < Max(n, 1); k++)
	{
		ContactField of = n ? decision->items[k].field : field;
		MergeCandidate *out;

		if (!decision->member && decided_by_itself(s, of))
			continue;
		out = add_candidate(s, of, key);

		out->input = -1;
		out->support = -1;
		out->item = n ? &decision->items[k] : NULL;
		out->rank = 1;
		out->changed_at = out->as_of = decision->decided_at;
		out->verdict = MV_WON;
		out->decision_id = decision->id;
	}
}

/* One item of a claim, or the lack of one. */
void
merge_explain_item(MergeResolver *s, ContactField field, StrView key, const MergeClaim *c, int k, int rank, const MergeDecision *decision)
{
	MergeCandidate *out = add_candidate(s, field, key);

	out->input = c->input;
	out->item = c->nitems ? c->items[k] : NULL;
	out->rank = rank;
	out->changed_at = c->changed_at;
	out->as_of = c->as_of;
	out->estimate = !c->witnessed;
	out->displaced = c->displaced;
	out->derived = c->nitems > 0 && (c->stamps[k]->flags & CS_DERIVED) != 0;
	out->support = c->displaced ? 0 : c->votes;
	out->verdict = c->verdict;
	out->decision_id = decision ? decision->id : 0;
	out->stale = decision && merge_is_stale(s, decision, c);
	merge_claim_digest(s, c, out->digest);
}

void
merge_explain_claims(MergeResolver *s, ContactField field, StrView key, const MergeDecision *decision)
{
	bool		claimed = decision == NULL;

	for (int i = 0; i < s->nclaims; i++)
		claimed |= s->claims[i].verdict == MV_WON;
	if (s->explain && !claimed)
		explain_decision(s, field, key, decision);
	for (int i = 0; s->explain && i < s->nclaims; i++)
	{
		const MergeClaim *c = &s->claims[i];
		int			n = Max(c->nitems, 1);

		for (int k = 0; k < n; k++)
		{
			ContactField of = c->nitems ? c->items[k]->field : field;

			/* members that were decided by themselves are explained by themselves */
			if (!(decision && decision->member) && decided_by_itself(s, of))
				continue;
			merge_explain_item(s, of, key, c, k, i + 1 + !claimed, decision);
		}
	}
}

/* ---- claims ---- */

/* Begin a claim, behind those that there are; it counts once nclaims does. */
MergeClaim *
merge_claim_init(MergeResolver *s, int input, int maxitems)
{
	MergeClaim *c = &s->claims[s->nclaims];

	memset(c, 0, sizeof(*c));
	c->input = input;
	c->rank = merge_source_rank(s->rule, &s->inputs[input]);
	c->changed_at = c->as_of = c->known_since = MERGE_TIME_MIN;
	c->items = palloc(sizeof(*c->items) * maxitems);
	c->stamps = palloc(sizeof(*c->stamps) * maxitems);
	return c;
}

bool
merge_claim_empty_list(MergeClaim *c, const MergeInput *in, ContactField field)
{
	const ContactValue *state = &in->record.state;
	bool		covered = false;

	for (int i = 0; i < state->nitems; i++)
	{
		if (state->items[i].field != field)
			continue;
		if (!(state->items[i].flags & CI_TOMBSTONE))
			return false;
		covered |= state->items[i].key.len == 0;
	}
	for (int i = 0; i < state->nitems && covered; i++)
		if (state->items[i].field == field)
			merge_claim_stamp(c, in, &state->stamps[state->items[i].stamp]);
	return covered;
}

/*
 * What one record says of a cell: the fields of a mask, or one key.  False if that
 * is nothing; a claim without items says that there is no value.
 */
static bool
collect_claim(MergeClaim *c, const MergeInput *in, uint32 fields, StrView key, ContactField lead, MergeClear clear)
{
	const ContactValue *state = &in->record.state;
	const ContactValue *before = &in->record.cleared;
	const ContactStamp *gone[CF_COUNT];
	int			ngone = 0;
	bool		cleared = false;

	for (int f = 0; f < CF_COUNT && in->record.alive; f++)
	{
		int			at = fields & CF_BIT(f) ? contact_find(state, f, key) : -1;
		int			was;

		if (at < 0)
			continue;
		if (!(state->items[at].flags & CI_TOMBSTONE))
		{
			merge_claim_add(c, in, state, &state->items[at]);
			c->complete |= f == lead;
		}
		else if (clear == ML_IGNORE)
		{
			if ((was = contact_find(before, f, key)) < 0)
				continue;
			merge_claim_add(c, in, before, &before->items[was]);
			c->complete |= f == lead;
		}
		else
		{
			gone[ngone++] = &state->stamps[state->items[at].stamp];
			cleared |= f == lead;
		}
	}
	/* a group is cleared when its lead is, and nothing of it is left */
	for (int k = 0; k < ngone && c->nitems == 0 && cleared; k++)
		merge_claim_stamp(c, in, gone[k]);
	/* and an element with all of its list, had the record ever shown it or not */
	if (c->nitems == 0 && !cleared && in->record.alive && clear == ML_AUTHORITATIVE && CF_IS_LIST(lead))
		cleared = merge_claim_empty_list(c, in, lead);
	return c->nitems > 0 || cleared;
}

bool
merge_collect_as(MergeResolver *s, uint32 fields, StrView key, ContactField lead, MergeClear review_as)
{
	bool		any_complete = false;
	bool		any_review = false;

	s->nclaims = 0;
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		MergeClaim *c = merge_claim_init(s, i, CF_COUNT);
		MergeClear	clear = merge_clear_of(s->rule, in);

		any_review |= clear == ML_REVIEW;
		if (clear == ML_REVIEW)
			clear = review_as;
		if (!collect_claim(c, in, fields, key, lead, clear))
			continue;
		c->bytes = merge_claim_bytes(c->items, c->nitems);
		if (c->nitems == 0 && clear != ML_AUTHORITATIVE)
			c->verdict = MV_WITHDRAWN;
		else
			c->verdict = merge_is_excluded(s->rule, in) ? MV_EXCLUDED : MV_LOST;
		/* that there is no value says so of the lead, too */
		c->complete |= c->nitems == 0;
		s->nclaims++;
		if (c->verdict == MV_LOST && c->nitems > 0)
			any_complete |= c->complete;
	}
	for (int i = 0; i < s->nclaims; i++)
		if (s->claims[i].verdict == MV_LOST && any_complete && !s->claims[i].complete)
			s->claims[i].verdict = MV_INCOMPLETE;
	merge_order(s, s->rule);
	return any_review;
}

/* Collect what every record says of a cell, in the order of the rule. */
void
merge_collect(MergeResolver *s, uint32 fields, StrView key, ContactField lead)
{
	(void) merge_collect_as(s, fields, key, lead, s->rule->kind == MR_MANUAL_REVIEW ? ML_AUTHORITATIVE : ML_IGNORE);
}

bool
merge_competes(const MergeClaim *c)
{
	return c->verdict == MV_LOST;
}

/* Does it fill the group's lead member? */
bool
merge_lead_filled(const MergeClaim *c, ContactField lead)
{
	for (int i = 0; i < c->nitems; i++)
		if (c->items[i]->field == lead)
			return true;
	return false;
}

/* The claims that compete, counted by distinct content. */
int
merge_count_distinct(const MergeResolver *s)
{
	int			n = 0;

	for (int i = 0; i < s->nclaims && merge_competes(&s->claims[i]); i++)
	{
		int			j;

		for (j = 0; j < i && strview_cmp(s->claims[i].bytes, s->claims[j].bytes) != 0; j++)
			;
		n += j == i;
	}
	return n;
}
