/*
 * contact_layout.c
 *		The stored form of a contact.
 *
 * After the varlena header, all numbers in host order and read by memcpy, so
 * that a short header does no harm:
 *
 *	u8 version, u8 reserved, u16 nitems, u16 nstamps, u16 nsources
 *	u32 field map				bit per field that has items
 *	u16 start[popcount(map)]	index of each present field's first item,
 *								padded to a multiple of 4
 *	entry[nitems]				u32 end of its bytes in the body : 24, field : 8
 *								u8 flags, u8 parts, u16 stamp + 1
 *	stamp[nstamps]				i64 as_of, i64 changed_at, u16 source, u8 flags,
 *								u8 zero; equal stamps are stored once
 *	u32 source end[nsources], source names
 *	body						bytes of the items, in order
 *
 * An item's bytes are the parts that its "parts" byte names, each with a
 * length before it, and then its value, which needs none.  A key that equals
 * the value is not stored twice.  Items stand in canonical order, hot fields
 * first, so equal values are equal bytes and a slice serves the accessors.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "compat.h"
#include "contact/contact.h"

#define LAYOUT_VERSION		1

/* bits of an entry's parts byte */
#define PART_KEY			0x01	/* else the key equals the value */
#define PART_NOKEY			0x02	/* no key at all */
#define PART_TYPE			0x04
#define PART_EXTENSION		0x08
#define PART_ADDRESS		0x10

typedef struct LayoutHeader
{
	uint8		version;
	uint8		reserved;
	uint16		nitems;
	uint16		nstamps;
	uint16		nsources;
	uint32		map;
} LayoutHeader;

typedef struct LayoutEntry
{
	uint32		end_field;		/* end << 8 | field */
	uint8		flags;
	uint8		parts;
	uint16		stamp;			/* index + 1, 0 = none */
} LayoutEntry;

typedef struct LayoutStamp
{
	int64		as_of;
	int64		changed_at;
	uint16		source;
	uint8		flags;
	uint8		zero;
	uint32		pad;
} LayoutStamp;

#define STAMP_SIZE			20	/* of a LayoutStamp as stored */

static inline int
varint_size(uint32 n)
{
	return n < 0x80 ? 1 : n < 0x4000 ? 2 : n < 0x200000 ? 3 : 4;
}

static char *
put_part(char *p, StrView s)
{
	uint32		n = s.len;

	while (n >= 0x80)
	{
		*p++ = (char) (n | 0x80);
		n >>= 7;
	}
	*p++ = (char) n;
	if (s.len > 0)
		memcpy(p, s.ptr, s.len);
	return p + s.len;
}

static const char *
get_part(const char *p, StrView *s)
{
	uint32		n = 0;
	int			shift = 0;

	do
	{
		n |= (uint32) (*p & 0x7f) << shift;
		shift += 7;
	} while (*p++ & 0x80);
	s->ptr = n > 0 ? p : NULL;
	s->len = n;
	return p + n;
}

static inline int
part_size(StrView s)
{
	return varint_size(s.len) + s.len;
}

static uint8
item_parts(const ContactItem *item)
{
	uint8		parts = 0;

	if (item->key.len == 0)
		parts |= PART_NOKEY;
	else if (item->key.len != item->value.len ||
			 memcmp(item->key.ptr, item->value.ptr, item->key.len) != 0)
		parts |= PART_KEY;
	if (item->type.len > 0)
		parts |= PART_TYPE;
	if (item->extension.len > 0)
		parts |= PART_EXTENSION;
	if (item->field == CF_ADDRESSES && !(item->flags & CI_TOMBSTONE))
		parts |= PART_ADDRESS;
	return parts;
}

static Size
item_size(const ContactItem *item, uint8 parts)
{
	Size		size = item->value.len;

	if (parts & PART_KEY)
		size += part_size(item->key);
	if (parts & PART_TYPE)
		size += part_size(item->type);
	if (parts & PART_EXTENSION)
		size += part_size(item->extension);
	if (parts & PART_ADDRESS)
	{
		for (int i = 0; i < CA_COUNT; i++)
			size += part_size(item->part[i]);
	}
	return size;
}

static bool
stamp_same(const ContactStamp *a, const ContactStamp *b)
{
	return a->as_of == b->as_of && a->changed_at == b->changed_at &&
		a->flags == b->flags && strview_cmp(a->source, b->source) == 0;
}

Contact *
contact_form(const ContactValue *v)
{
	LayoutHeader head = {0};
	uint16	   *stamp_of = palloc0(sizeof(uint16) * Max(v->nstamps, 1));	/* index + 1 */
	int		   *stamps = palloc(sizeof(int) * Max(v->nstamps, 1));
	uint16	   *source_of = palloc(sizeof(uint16) * Max(v->nstamps, 1));
	StrView    *sources = palloc(sizeof(StrView) * Max(v->nstamps, 1));
	Size		body = 0;
	Size		names = 0;
	Size		size;
	int			nfields;
	Contact    *c;
	char	   *p;
	char	   *bytes;
	uint32		end = 0;

	/* stamps in the order of their first use, equal ones once */
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];
		int			s = item->stamp;

		head.map |= CF_BIT(item->field);
		body += item_size(item, item_parts(item));
		if (s < 0 || stamp_of[s])
			continue;
		for (int j = 0; j < head.nstamps && !stamp_of[s]; j++)
			if (stamp_same(&v->stamps[stamps[j]], &v->stamps[s]))
				stamp_of[s] = j + 1;
		if (!stamp_of[s])
		{
			int			k;

			for (k = 0; k < head.nsources; k++)
				if (strview_cmp(sources[k], v->stamps[s].source) == 0)
					break;
			if (k == head.nsources)
			{
				sources[head.nsources++] = v->stamps[s].source;
				names += v->stamps[s].source.len;
			}
			source_of[head.nstamps] = k;
			stamps[head.nstamps++] = s;
			stamp_of[s] = head.nstamps;
		}
	}
	if (v->nitems > CONTACT_MAX_ITEMS || body > CONTACT_MAX_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("contact is too large"),
				 errdetail("It may have %d values and %d bytes.",
						   CONTACT_MAX_ITEMS, CONTACT_MAX_SIZE)));

	head.version = LAYOUT_VERSION;
	head.nitems = v->nitems;
	nfields = pg_popcount32(head.map);
	size = VARHDRSZ + sizeof(head) + TYPEALIGN(4, nfields * sizeof(uint16)) +
		v->nitems * sizeof(LayoutEntry) + head.nstamps * STAMP_SIZE +
		head.nsources * sizeof(uint32) + names + body;
	c = palloc0(size);
	SET_VARSIZE(c, size);
	p = c->data;
	memcpy(p, &head, sizeof(head));
	p += sizeof(head);

	for (int i = 0, n = 0; i < v->nitems; i++)
	{
		uint16		start = i;

		if (i == 0 || v->items[i - 1].field != v->items[i].field)
			memcpy(p + sizeof(uint16) * n++, &start, sizeof(start));
	}
	p += TYPEALIGN(4, nfields * sizeof(uint16));

	bytes = (char *) c + size - body;
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];
		LayoutEntry entry = {0};

		entry.parts = item_parts(item);
		end += item_size(item, entry.parts);
		entry.end_field = end << 8 | item->field;
		entry.flags = item->flags;
		entry.stamp = item->stamp < 0 ? 0 : stamp_of[item->stamp];
		memcpy(p, &entry, sizeof(entry));
		p += sizeof(entry);

		if (entry.parts & PART_KEY)
			bytes = put_part(bytes, item->key);
		if (entry.parts & PART_TYPE)
			bytes = put_part(bytes, item->type);
		if (entry.parts & PART_EXTENSION)
			bytes = put_part(bytes, item->extension);
		if (entry.parts & PART_ADDRESS)
		{
			for (int j = 0; j < CA_COUNT; j++)
				bytes = put_part(bytes, item->part[j]);
		}
		if (item->value.len > 0)
			memcpy(bytes, item->value.ptr, item->value.len);
		bytes += item->value.len;
	}

	for (int i = 0; i < head.nstamps; i++)
	{
		const ContactStamp *from = &v->stamps[stamps[i]];
		LayoutStamp stamp = {0};

		stamp.as_of = from->as_of;
		stamp.changed_at = from->changed_at;
		stamp.source = source_of[i];
		stamp.flags = from->flags;
		memcpy(p, &stamp, STAMP_SIZE);
		p += STAMP_SIZE;
	}
	end = 0;
	for (int i = 0; i < head.nsources; i++)
	{
		end += sources[i].len;
		memcpy(p, &end, sizeof(end));
		p += sizeof(end);
	}
	for (int i = 0; i < head.nsources; i++)
	{
		memcpy(p, sources[i].ptr, sources[i].len);
		p += sources[i].len;
	}

	pfree(stamp_of);
	pfree(stamps);
	pfree(source_of);
	pfree(sources);
	return c;
}

void
contact_deform(const Contact *c, ContactValue *v)
{
	LayoutHeader head;
	const char *p = c->data;
	const char *entries;
	const char *names;
	const char *source_ends;
	const char *bytes;
	uint32		begin = 0;
	uint32		names_len = 0;

	memcpy(&head, p, sizeof(head));
	if (head.version != LAYOUT_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("contact has format version %d, which this release does not know",
						head.version),
				 errhint("It was written by a later release of contactsync.")));
	p += sizeof(head) + TYPEALIGN(4, pg_popcount32(head.map) * sizeof(uint16));
	entries = p;
	p += head.nitems * sizeof(LayoutEntry);

	v->nitems = head.nitems;
	v->nstamps = head.nstamps;
	v->items = palloc0(sizeof(ContactItem) * Max(head.nitems, 1));
	v->stamps = palloc0(sizeof(ContactStamp) * Max(head.nstamps, 1));

	source_ends = p + head.nstamps * STAMP_SIZE;
	names = source_ends + head.nsources * sizeof(uint32);
	for (int i = 0; i < head.nstamps; i++, p += STAMP_SIZE)
	{
		LayoutStamp stamp;
		uint32		from = 0;
		uint32		to;

		memcpy(&stamp, p, STAMP_SIZE);
		if (stamp.source > 0)
			memcpy(&from, source_ends + (stamp.source - 1) * sizeof(uint32), sizeof(from));
		memcpy(&to, source_ends + stamp.source * sizeof(uint32), sizeof(to));
		v->stamps[i].source.ptr = names + from;
		v->stamps[i].source.len = to - from;
		v->stamps[i].as_of = stamp.as_of;
		v->stamps[i].changed_at = stamp.changed_at;
		v->stamps[i].flags = stamp.flags;
	}
	if (head.nsources > 0)
		memcpy(&names_len, source_ends + (head.nsources - 1) * sizeof(uint32), sizeof(names_len));

	bytes = names + names_len;
	for (int i = 0; i < head.nitems; i++)
	{
		ContactItem *item = &v->items[i];
		LayoutEntry entry;
		const char *from = bytes + begin;
		uint32		end;

		memcpy(&entry, entries + i * sizeof(LayoutEntry), sizeof(entry));
		end = entry.end_field >> 8;
		item->field = entry.end_field & 0xff;
		item->flags = entry.flags;
		item->stamp = (int16) entry.stamp - 1;
		if (entry.parts & PART_KEY)
			from = get_part(from, &item->key);
		if (entry.parts & PART_TYPE)
			from = get_part(from, &item->type);
		if (entry.parts & PART_EXTENSION)
			from = get_part(from, &item->extension);
		if (entry.parts & PART_ADDRESS)
		{
			for (int j = 0; j < CA_COUNT; j++)
				from = get_part(from, &item->part[j]);
		}
		item->value.len = bytes + end - from;
		item->value.ptr = item->value.len > 0 ? from : NULL;
		if (!(entry.parts & (PART_KEY | PART_NOKEY)))
			item->key = item->value;
		begin = end;
	}
}
