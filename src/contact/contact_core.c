/*
 * contact_core.c
 *		A contact's items: their names, their order and their canonical bytes.
 *
 * Everything that must be the same on every machine and in every locale is
 * here: strings compare as bytes, and an item's canonical bytes are prefixed
 * by lengths, so that no two contents share them.  Plain C; also builds as
 * FRONTEND code.
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "contact/contact.h"

const char *const contact_field_names[CF_COUNT] = {
	"first_name", "middle_name", "last_name", "prefix", "suffix", "nickname",
	"company", "department", "title", "birthday", "note", "photo",
	"emails", "phones", "addresses", "urls", "tags", "metadata"
};

int
contact_field_lookup(const char *name, int len)
{
	int			f;

	/* length and one letter leave one candidate */
	switch (len)
	{
		case 4:
			f = name[0] == 'n' ? CF_NOTE : name[0] == 't' ? CF_TAGS : CF_URLS;
			break;
		case 5:
			f = name[0] == 't' ? CF_TITLE : CF_PHOTO;
			break;
		case 6:
			f = name[0] == 'e' ? CF_EMAILS : name[0] == 's' ? CF_SUFFIX :
				name[1] == 'h' ? CF_PHONES : CF_PREFIX;
			break;
		case 7:
			f = CF_COMPANY;
			break;
		case 8:
			f = name[0] == 'b' ? CF_BIRTHDAY : name[0] == 'm' ? CF_METADATA : CF_NICKNAME;
			break;
		case 9:
			f = name[0] == 'a' ? CF_ADDRESSES : CF_LAST_NAME;
			break;
		case 10:
			f = name[0] == 'd' ? CF_DEPARTMENT : CF_FIRST_NAME;
			break;
		case 11:
			f = CF_MIDDLE_NAME;
			break;
		default:
			return -1;
	}
	return memcmp(contact_field_names[f], name, len) == 0 ? f : -1;
}

/* Byte order; what is absent sorts before what is empty. */
int
strview_cmp(StrView a, StrView b)
{
	int			r;

	if (a.ptr == NULL || b.ptr == NULL)
		return (a.ptr != NULL) - (b.ptr != NULL);
	r = memcmp(a.ptr, b.ptr, Min(a.len, b.len));
	if (r != 0)
		return r < 0 ? -1 : 1;
	return (a.len > b.len) - (a.len < b.len);
}

/*
 * Order of contents.  A Contact does not keep absent and empty strings apart,
 * so they must not differ here either.
 */
static int
content_cmp(StrView a, StrView b)
{
	int			n = Min(a.len, b.len);
	int			r = n > 0 ? memcmp(a.ptr, b.ptr, n) : 0;

	if (r != 0)
		return r < 0 ? -1 : 1;
	return (a.len > b.len) - (a.len < b.len);
}

/* Identity order: field, then key. */
int
contact_item_cmp(const ContactItem *a, const ContactItem *b)
{
	if (a->field != b->field)
		return a->field < b->field ? -1 : 1;
	return content_cmp(a->key, b->key);
}

/* Order of two items by identity and then by content. */
static int
item_content_cmp(const ContactItem *a, const ContactItem *b)
{
	int			r;

	if ((r = contact_item_cmp(a, b)) != 0)
		return r;
	if ((r = content_cmp(a->value, b->value)) != 0)
		return r;
	if (!CF_IS_LIST(a->field))
		return (int) a->flags - (int) b->flags;
	if ((r = content_cmp(a->type, b->type)) != 0)
		return r;
	if ((r = content_cmp(a->extension, b->extension)) != 0)
		return r;
	if (a->field == CF_ADDRESSES)
	{
		for (int p = 0; p < CA_COUNT; p++)
			if ((r = content_cmp(a->part[p], b->part[p])) != 0)
				return r;
	}
	return (int) a->flags - (int) b->flags;
}

bool
contact_item_same(const ContactItem *a, const ContactItem *b)
{
	return item_content_cmp(a, b) == 0;
}

int
contact_value_cmp(const ContactValue *a, const ContactValue *b)
{
	int			i = 0;
	int			j = 0;

	for (;;)
	{
		int			r;

		while (i < a->nitems && (a->items[i].flags & CI_TOMBSTONE))
			i++;
		while (j < b->nitems && (b->items[j].flags & CI_TOMBSTONE))
			j++;
		if (i == a->nitems || j == b->nitems)
			return (i < a->nitems) - (j < b->nitems);
		if ((r = item_content_cmp(&a->items[i++], &b->items[j++])) != 0)
			return r < 0 ? -1 : 1;
	}
}

int
contact_find(const ContactValue *v, ContactField field, StrView key)
{
	ContactItem probe;
	int			lo = 0;
	int			hi = v->nitems;

	probe.field = field;
	probe.key = key;
	while (lo < hi)
	{
		int			mid = lo + (hi - lo) / 2;
		int			r = contact_item_cmp(&v->items[mid], &probe);

		if (r == 0)
			return mid;
		if (r < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return -1;
}

/* Let "into" have what "from", an item of the same identity, knows more. */
static void
item_join(ContactItem *into, const ContactItem *from)
{
	if ((into->flags & CI_TOMBSTONE) && !(from->flags & CI_TOMBSTONE))
	{
		*into = *from;
		return;
	}
	if (into->stamp < 0)
		into->stamp = from->stamp;
	if (from->flags & CI_TOMBSTONE)
		return;
	into->flags |= from->flags & (CI_PRIMARY | CI_VERIFIED | CI_UNVERIFIED);
	if (into->flags & CI_VERIFIED)
		into->flags &= ~CI_UNVERIFIED;
	if (into->type.len == 0)
		into->type = from->type;
}

/* Items of one array: where identities are equal, the first said stays first. */
static int
item_ptr_cmp(const void *a, const void *b)
{
	const ContactItem *x = *(ContactItem *const *) a;
	const ContactItem *y = *(ContactItem *const *) b;
	int			r = contact_item_cmp(x, y);

	return r != 0 ? r : (x > y) - (x < y);
}

/*
 * Bring a value's items into canonical order.  Items of one identity become
 * one, spelled as the first of them; of several primary elements of a list the
 * first given stays primary.
 */
void
contact_sort(ContactValue *v)
{
	uint32		has_primary = 0;
	bool		sorted = true;
	int			from[CF_COUNT + 1] = {0};
	int			to[CF_COUNT + 1];
	ContactItem **order;
	ContactItem *result;
	int			n = 0;

	for (int i = 0; i < v->nitems; i++)
	{
		ContactItem *item = &v->items[i];

		if (item->flags & CI_PRIMARY)
		{
			if (has_primary & CF_BIT(item->field))
				item->flags &= ~CI_PRIMARY;
			has_primary |= CF_BIT(item->field);
		}
		from[item->field + 1]++;
		if (i > 0 && sorted && contact_item_cmp(item - 1, item) >= 0)
			sorted = false;
	}
	if (sorted)
		return;

	/* by field at first, so that each field's items are sorted among themselves */
	order = palloc(v->nitems * sizeof(ContactItem *));
	for (int f = 0; f < CF_COUNT; f++)
		from[f + 1] += from[f];
	memcpy(to, from, sizeof(to));
	for (int i = 0; i < v->nitems; i++)
		order[to[v->items[i].field]++] = &v->items[i];
	for (int f = 0; f < CF_COUNT; f++)
	{
		int			count = to[f] - from[f];

		if (count == 2)
		{
			ContactItem **pair = order + from[f];

			if (contact_item_cmp(pair[0], pair[1]) > 0)
			{
				ContactItem *first = pair[0];

				pair[0] = pair[1];
				pair[1] = first;
			}
		}
		else if (count > 2)
			qsort(order + from[f], count, sizeof(ContactItem *), item_ptr_cmp);
	}

	result = palloc(v->nitems * sizeof(ContactItem));
	for (int i = 0; i < v->nitems; i++)
	{
		if (n > 0 && contact_item_cmp(&result[n - 1], order[i]) == 0)
			item_join(&result[n - 1], order[i]);
		else
			result[n++] = *order[i];
	}
	pfree(order);
	v->items = result;
	v->nitems = n;
}

static char *
put_string(char *p, StrView s)
{
	uint32		n = (uint32) s.len;

	*p++ = (char) (n >> 24);
	*p++ = (char) (n >> 16);
	*p++ = (char) (n >> 8);
	*p++ = (char) n;
	if (s.len > 0)
		memcpy(p, s.ptr, s.len);
	return p + s.len;
}

StrView
contact_item_bytes(const ContactItem *item)
{
	bool		address = item->field == CF_ADDRESSES;
	int			len = 2 + 4 * 4 + item->key.len + item->value.len +
		item->type.len + item->extension.len;
	StrView		result;
	char	   *p;

	if (address)
	{
		for (int i = 0; i < CA_COUNT; i++)
			len += 4 + item->part[i].len;
	}

	p = palloc(len);
	result.ptr = p;
	result.len = len;
	*p++ = (char) item->field;
	*p++ = (char) item->flags;
	p = put_string(p, item->key);
	p = put_string(p, item->value);
	p = put_string(p, item->type);
	p = put_string(p, item->extension);
	if (address)
	{
		for (int i = 0; i < CA_COUNT; i++)
			p = put_string(p, item->part[i]);
	}
	return result;
}
