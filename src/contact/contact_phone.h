/*
 * contact_phone.h
 *		Reading telephone numbers, and the numbering plans it goes by.
 *
 * Plain C that also builds as FRONTEND code: no ereport, no catalogs, no
 * locale, no memory but the caller's.  The plans are compiled in, so the same
 * build gives the same answer for ever.  A newer one may judge a number
 * differently (possible, not yet valid); what a possible number is in E.164
 * hangs on the country code, the lengths and the prefixes alone, and those
 * hardly ever change.
 */
#ifndef CONTACTSYNC_CONTACT_PHONE_H
#define CONTACTSYNC_CONTACT_PHONE_H

/* Longer texts are no numbers, as in Google's libphonenumber. */
#define CONTACT_PHONE_MAX_INPUT		250
#define CONTACT_PHONE_MAX_EXTENSION 20

typedef enum ContactPhoneStatus
{
	CONTACT_PHONE_UNPARSED,
	CONTACT_PHONE_POSSIBLE,		/* country code and length fit */
	CONTACT_PHONE_VALID			/* within a range that is in use */
} ContactPhoneStatus;

typedef struct ContactPhone
{
	ContactPhoneStatus status;
	bool		plus;			/* written in international form */
	bool		plain;			/* digits, and nothing else but separators and
								 * an extension */
	int			ndigits;
	char		digits[CONTACT_PHONE_MAX_INPUT + 1];	/* E.164 without its plus;
														 * of what is unparsed,
														 * the digits as dialled */
	int			extension_len;
	char		extension[CONTACT_PHONE_MAX_EXTENSION + 1];
} ContactPhone;

/* What contact_phone_region answers where there is no numbering plan. */
#define CONTACT_PHONE_NO_REGION		(-1)	/* known not to have one, or none given */
#define CONTACT_PHONE_BAD_REGION	(-2)	/* no ISO 3166 code of two letters */

/* contact_phone.c */
extern int	contact_phone_region(const char *code, int len);
/*
 * Read a number as somebody in that region would dial it.  Without a region,
 * only international form (with +) can be told.  utf8 says whether bytes above
 * 127 are UTF-8; otherwise they are noise, but for the no-break space.
 */
extern void contact_phone_parse(const char *s, int len, int region, bool utf8,
								ContactPhone *phone);

/*
 * contact_phone_data.c, written by phone_metadata.py
 *
 * The automaton: a state's edges are contact_phone_edges[states[n]] up to
 * [states[n + 1]], each a mask of digits (10 bits) and above it the next
 * state.  States below contact_phone_naccepting accept.
 *
 * Programs match prefixes: the opcode is in the upper four bits of an
 * instruction, its argument (digits' mask, distance, slot) in the others.
 */
typedef enum ContactPhoneOp
{
	CPO_MATCH,					/* the prefix ends here */
	CPO_DIGIT,					/* one digit of the mask */
	CPO_SPLIT,					/* go on here; if that fails, that much farther */
	CPO_JUMP,
	CPO_SAVE,					/* group n begins (slot 2n) or ends (2n + 1) */
	CPO_END						/* nothing may follow */
} ContactPhoneOp;

#define CPO_OF(i_)			((i_) >> 12)
#define CPO_ARG(i_)			((i_) & 0xFFF)

#define CONTACT_PHONE_MAX_GROUPS	3

typedef struct ContactPhoneRegion
{
	char		code[3];		/* ISO 3166; empty: a code without a country */
	uint16		calling;		/* country code */
	uint16		general;		/* state: the shape of national numbers */
	uint32		lengths;		/* bit n: n digits are possible */
	uint16		idd;			/* program: prefix of calls abroad; 0 = none */
	uint16		prefix;			/* program: national prefix; 0 = none */
	uint8		groups;			/* in it */
	uint8		transform;		/* what takes its place, if its last group
								 * matched; 0 = nothing */
} ContactPhoneRegion;

typedef struct ContactPhoneCode
{
	uint16		calling;
	uint16		region;			/* whose plan is the main one */
	uint16		valid;			/* state: the valid national numbers */
} ContactPhoneCode;

extern const char *const contact_phone_metadata;
extern const ContactPhoneRegion contact_phone_regions[];	/* by code */
extern const int contact_phone_nregions;
extern const char *const contact_phone_planless;
extern const ContactPhoneCode contact_phone_codes[];
extern const uint8 contact_phone_code_numbers[1000];	/* by calling: index + 1; 0 = none */
extern const char *const contact_phone_transforms[];
extern const uint16 contact_phone_programs[];
extern const int contact_phone_naccepting;
extern const uint16 contact_phone_states[];
extern const uint32 contact_phone_edges[];

#endif							/* CONTACTSYNC_CONTACT_PHONE_H */
