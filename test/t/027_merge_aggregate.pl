# merge() and resolve() give the same contact whatever the order of the rows and
# however they are grouped: by combining partial states, and by parallel workers.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || 20261125;
my $rounds = $ENV{ROUNDS} || 40;
note("SEED=$seed ROUNDS=$rounds repeats this run");

my $node = PostgreSQL::Test::Cluster->new('aggregate');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nmax_parallel_workers = 8");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION contactsync;
	-- a contact as a source, or several, may say it: stamped, in part, or not at all
	CREATE FUNCTION random_contact() RETURNS contactsync.contact LANGUAGE plpgsql VOLATILE AS $$
	DECLARE
		value jsonb := '{}';
		stamps jsonb := '{}';
		f text;
		n text;
		flags text[];
		at timestamptz;
	BEGIN
		FOREACH f IN ARRAY '{last_name,first_name,company,title,note,nickname}'::text[] LOOP
			CONTINUE WHEN random() < .5;
			value := value || jsonb_build_object(f, 'v' || floor(random() * 3));
		END LOOP;
		IF random() < .7 THEN
			value := value || jsonb_build_object('tags', (SELECT jsonb_agg(DISTINCT 't' || floor(random() * 4)) FROM generate_series(1, 1 + floor(random() * 3)::integer)));
		END IF;
		IF random() < .7 THEN
			value := value || jsonb_build_object('emails', (SELECT jsonb_agg(jsonb_build_object('address', 'e' || i || '@x.org', 'primary', random() < .3, 'verified', random() < .3))
				FROM generate_series(1, 1 + floor(random() * 3)::integer) i));
		END IF;
		FOR f IN SELECT k FROM jsonb_object_keys(value) k WHERE k NOT IN ('tags', 'emails')
			UNION ALL SELECT 'tags:' || t FROM jsonb_array_elements_text(value -> 'tags') t
			UNION ALL SELECT 'emails:' || (e ->> 'address') FROM jsonb_array_elements(value -> 'emails') e
			-- what is said to be empty
			UNION ALL SELECT 'photo' WHERE random() < .2
		LOOP
			CONTINUE WHEN f <> 'photo' AND random() < .2;
			n := (ARRAY['crm', 'mkt', 'phone'])[1 + floor(random() * 3)];
			flags := CASE WHEN random() < .2 THEN '{estimate}' WHEN random() < .1 THEN '{derived}' WHEN random() < .1 THEN '{verified}' ELSE '{}' END;
			IF f = 'photo' THEN
				flags := flags || 'tombstone'::text;
			END IF;
			at := timestamptz '2026-01-01 UTC' + floor(random() * 4) * interval '1 day';
			stamps := stamps || jsonb_build_object(f, jsonb_build_object('source', n, 'changed_at', at, 'as_of', at + floor(random() * 2) * interval '1 day', 'flags', flags));
		END LOOP;
		IF stamps <> '{}' THEN
			value := value || jsonb_build_object('_provenance', stamps);
		END IF;
		RETURN value;
	END
	$$;
	CREATE FUNCTION random_policy() RETURNS contactsync.merge_policy LANGUAGE sql VOLATILE AS $$
		SELECT coalesce(jsonb_object_agg(t, jsonb_build_object('rule', r[1 + floor(random() * cardinality(r))::integer])
				|| CASE WHEN random() < .3 THEN '{"sources": ["mkt", "crm"]}'::jsonb || jsonb_build_object('only', random() < .4) ELSE '{"sources": ["phone"]}' END
				|| CASE WHEN t LIKE '%.primary' OR random() < .5 THEN '{}' ELSE jsonb_build_object('clear', (ARRAY['authoritative', 'ignore'])[1 + floor(random() * 2)]) END), '{}')::contactsync.merge_policy
		FROM (VALUES ('name'), ('job'), ('note'), ('nickname'), ('tags'), ('emails'), ('emails.primary'), ('photo')) v (t),
			LATERAL (SELECT ARRAY['last_write_wins', 'source_priority', 'most_frequent', 'verified_first', 'oldest', 'most_complete']
				|| CASE WHEN t IN ('tags', 'emails') THEN ARRAY['union'] WHEN t LIKE '%.primary' THEN '{}' ELSE ARRAY['manual_review'] END) u (r)
		WHERE random() < .7
	$$;
	CREATE TABLE given (id integer, contact contactsync.contact);
	CREATE TABLE policy (p contactsync.merge_policy);
	ALTER TABLE given SET (parallel_workers = 2);
});

my $bad = 0;
for my $round (1 .. $rounds)
{
	my $size = 2 + ($round * 7) % 23;
	my $seed_of = sprintf('%.6f', (($seed * 31 + $round) % 2000003) / 2000003);
	my $answers = $node->safe_psql('postgres', qq{
		SET client_min_messages = warning;
		SET search_path = contactsync, public;
		DO \$\$ BEGIN PERFORM setseed($seed_of); END \$\$;
		TRUNCATE given, policy;
		INSERT INTO given SELECT i, random_contact() FROM generate_series(1, $size) i;
		INSERT INTO policy SELECT random_policy();
		WITH answers (answer) AS (
			SELECT resolve(array_agg(contact ORDER BY id), p) FROM given, policy GROUP BY p
			UNION ALL SELECT resolve(array_agg(contact ORDER BY id DESC), p) FROM given, policy GROUP BY p
			UNION ALL SELECT resolve(array_agg(contact ORDER BY random()), p) FROM given, policy, generate_series(1, 5) n GROUP BY p, n
			UNION ALL SELECT merge(contact, p ORDER BY random()) FROM given, policy, generate_series(1, 5) n GROUP BY n
		)
		SELECT DISTINCT answer FROM (SELECT answer::text FROM answers) a;
	});
	# partial states, combined in any order and nesting
	my $combined = $node->safe_psql('postgres', qq{
		SET search_path = contactsync, public;
		DO \$\$
		DECLARE
			states merge_state[];
			i integer;
			k integer;
		BEGIN
			SELECT array_agg(merge_transition(NULL, contact, p) ORDER BY random()) INTO states FROM given, policy;
			WHILE cardinality(states) > 1 LOOP
				i := 1 + floor(random() * cardinality(states));
				k := 1 + floor(random() * cardinality(states));
				CONTINUE WHEN i = k;
				states[i] := merge_combine(states[i]::text::merge_state, states[k]);
				states := states[:k - 1] || states[k + 1:];
			END LOOP;
			CREATE TEMP TABLE one AS SELECT merge_final(states[1]) AS answer;
		END \$\$;
		SELECT answer::text FROM one;
	});
	# workers, each with its share of the rows
	my $parallel = $node->safe_psql('postgres', q{
		SET search_path = contactsync, public;
		SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
		SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off;
		SELECT merge(contact, (SELECT p FROM policy))::text FROM given;
	});
	next if $answers eq $combined && $answers eq $parallel && $answers ne '';
	$bad++;
	diag("round $round of SEED=$seed, $size contacts:\n  in one: $answers\n  combined: $combined\n  parallel: $parallel\n  policy: "
		  . $node->safe_psql('postgres', 'SELECT p FROM policy') . "\n" . $node->safe_psql('postgres', 'SELECT contact FROM given ORDER BY id'));
	last if $bad == 3;
}
is($bad, 0, "$rounds sets of contacts: one answer each, whatever the order and the grouping");
like($node->safe_psql('postgres', q{
	SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	EXPLAIN (COSTS OFF) SELECT contactsync.merge(contact, (SELECT p FROM policy)) FROM given}),
	qr/Finalize Aggregate.*Gather.*Partial Aggregate/s, 'and workers had their part in it');

$node->stop;
done_testing();
