/*
 * merge_derived.c
 *		Derived claims: what a source shows because we wrote it there.
 *
 * In a folded state a derived cell's stamp names the record whose claim was
 * written, its origin, and not the source itself.  Such a cell stands only while its
 * origin asserts the value, and then with the origin's times.
 */
#include "postgres.h"

#include "merge/merge_claims.h"

/* The name of a record in one text: source and id, with "/" and "%" in the source's name escaped. */
StrView
merge_origin_name(StrView source, StrView source_id)
{
	char	   *buf = palloc(3 * source.len + 1 + source_id.len);
	StrView		name = {buf, 0};

	for (int i = 0; i < source.len; i++)
	{
		char		c = source.ptr[i];

		if (c == '/' || c == '%')
		{
			memcpy(buf + name.len, c == '/' ? "%2F" : "%25", 3);
			name.len += 3;
		}
		else
			buf[name.len++] = c;
	}
	buf[name.len++] = '/';
	memcpy(buf + name.len, source_id.ptr ? source_id.ptr : "", source_id.len);
	name.len += source_id.len;
	return name;
}

/* The next word of a text, between blanks. */
static StrView
next_word(StrView *rest)
{
	StrView		word;
	int			i = 0;
	int			start;

	while (i < rest->len && strchr(" \t\r\n", rest->ptr[i]))
		i++;
	start = i;
	while (i < rest->len && !strchr(" \t\r\n", rest->ptr[i]))
		i++;
	word = strview(rest->ptr + start, i - start);
	rest->ptr += i;
	rest->len -= i;
	return word;
}

static bool
same_words(StrView a, StrView b)
{
	for (;;)
	{
		StrView		x = next_word(&a);
		StrView		y = next_word(&b);

		if (!strview_same(x, y))
			return false;
		if (x.len == 0)
			return true;
	}
}

/*
 * Is what is shown what was written, as a source may give it back?  Elements are
 * known by their keys, which fold the case of mail and give numbers as E.164; a
 * label or a verification that is not given back does not count, another one does.
 * Texts are compared word by word, trimmed and in NFC as all text here is.
 */
bool
merge_echoes(const ContactItem *written, const ContactItem *shown)
{
	if ((written->flags ^ shown->flags) & CI_TOMBSTONE)
		return false;
	if (written->flags & CI_TOMBSTONE)
		return true;
	if (written->field == CF_METADATA)
		return strview_same(written->value, shown->value);
	if (!CF_IS_LIST(written->field))
		return same_words(written->value, shown->value);
	if (shown->type.len > 0 && !strview_same(written->type, shown->type))
		return false;
	return (shown->flags & (CI_VERIFIED | CI_UNVERIFIED)) == 0 ||
		((written->flags ^ shown->flags) & (CI_VERIFIED | CI_UNVERIFIED)) == 0;
}

static bool
is_derived(const ContactValue *state, int i)
{
	return (state->stamps[state->items[i].stamp].flags & CS_DERIVED) != 0;
}

bool
merge_has_derived(const ContactValue *state)
{
	for (int i = 0; i < state->nstamps; i++)
		if (state->stamps[i].flags & CS_DERIVED)
			return true;
	return false;
}

/* A state without what it has from elsewhere. */
ContactValue
merge_own_state(const ContactValue *state)
{
	ContactValue own = *state;

	if (!merge_has_derived(state))
		return own;
	own.nitems = 0;
	own.items = palloc(sizeof(ContactItem) * Max(state->nitems, 1));
	for (int i = 0; i < state->nitems; i++)
		if (!is_derived(state, i))
			own.items[own.nitems++] = state->items[i];
	return own;
}

/* What was said, without what the state that it makes has from elsewhere. */
ContactValue
merge_own_claims(const ContactValue *state, const ContactValue *said)
{
	ContactValue own = *said;

	if (!merge_has_derived(state))
		return own;
	own.nitems = 0;
	own.items = palloc(sizeof(ContactItem) * Max(said->nitems, 1));
	for (int i = 0; i < said->nitems; i++)
	{
		int			at = contact_find(state, said->items[i].field, said->items[i].key);

		if (at < 0 || !is_derived(state, at))
			own.items[own.nitems++] = said->items[i];
	}
	return own;
}

/* Does the origin of a derived cell assert its value?  Then give the cell the origin's stamp. */
static bool
settle(MergeInput *in, int i, MergeInput *inputs, int ninputs)
{
	ContactItem *item = &in->record.state.items[i];
	ContactStamp *stamp = &in->record.state.stamps[item->stamp];

	for (int k = 0; k < ninputs; k++)
	{
		const MergeInput *from = &inputs[k];
		const ContactValue *state = &from->record.state;
		int			at;

		if (!from->record.alive ||
			!strview_same(stamp->source, merge_origin_name(from->source, from->source_id)))
			continue;
		at = contact_find(state, item->field, item->key);
		if (at < 0)
		{
			/* it says of neither that there is something */
			if (!(item->flags & CI_TOMBSTONE))
				return false;
			stamp->source = in->source;
			return true;
		}
		/* by way of a third record: once that one is settled */
		if (is_derived(state, at) && !strview_same(state->stamps[state->items[at].stamp].source, from->source))
			return false;
		if (!merge_echoes(item, &state->items[at]))
			return false;
		stamp->changed_at = merge_changed_at(&from->record, &state->stamps[state->items[at].stamp]);
		stamp->flags |= state->stamps[state->items[at].stamp].flags & CS_ESTIMATE;
		stamp->source = in->source;
		return true;
	}
	return false;
}

MergeInput *
merge_settle_derived(const MergeInput *inputs, int ninputs)
{
	MergeInput *settled = palloc(sizeof(MergeInput) * Max(ninputs, 1));
	bool		more = true;

	memcpy(settled, inputs, sizeof(MergeInput) * ninputs);
	for (int k = 0; k < ninputs; k++)
	{
		ContactValue *state = &settled[k].record.state;
		ContactValue copy = *state;

		if (!merge_has_derived(state))
			continue;
		copy.items = palloc(sizeof(ContactItem) * Max(state->nitems, 1));
		memcpy(copy.items, state->items, sizeof(ContactItem) * state->nitems);
		copy.stamps = palloc(sizeof(ContactStamp) * Max(state->nitems, 1));
		copy.nstamps = state->nitems;
		/* a stamp may be shared: each cell needs one of its own */
		for (int i = 0; i < state->nitems; i++)
		{
			copy.stamps[i] = state->stamps[state->items[i].stamp];
			copy.items[i].stamp = i;
		}
		*state = copy;
	}
	/* a cell that is settled bears its own source's name, and may settle others */
	while (more)
	{
		more = false;
		for (int k = 0; k < ninputs; k++)
		{
			ContactValue *state = &settled[k].record.state;

			for (int i = 0; settled[k].record.alive && i < state->nitems; i++)
				if (is_derived(state, i) && !strview_same(state->stamps[i].source, settled[k].source))
					more |= settle(&settled[k], i, settled, ninputs);
		}
	}
	/* what is left has no origin any more: it is no claim */
	for (int k = 0; k < ninputs; k++)
	{
		ContactValue *state = &settled[k].record.state;
		int			n = 0;

		if (!merge_has_derived(state))
			continue;
		for (int i = 0; i < state->nitems; i++)
			if (!is_derived(state, i) || strview_same(state->stamps[i].source, settled[k].source))
				state->items[n++] = state->items[i];
		state->nitems = n;
	}
	return settled;
}
