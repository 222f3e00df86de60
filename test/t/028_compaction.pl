# Compaction changes no result, whatever comes later: random histories, compacted at random times and gone on
# with, beside the same ones that were not.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Histories;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || 20261125;
my $rounds = $ENV{ROUNDS} || 6;
srand($seed);
note("SEED=$seed ROUNDS=$rounds repeats this run");

my $node = PostgreSQL::Test::Cluster->new('compaction');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off\njit = off");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION contactsync;
	SELECT contactsync.add_source(s, 'canonical', jsonb_build_object('class', c))
	FROM (VALUES ('crm', 'crm'), ('mkt', 'crm'), ('phone', 'device')) v (s, c);
	SELECT contactsync.set_policy('title', 'source_priority', '{device,crm}');
	SELECT contactsync.set_policy('note', 'manual_review');
	SELECT contactsync.set_policy('job', 'manual_review');
	SELECT contactsync.set_policy('metadata.k', 'manual_review');
});

sub ask { return $node->safe_psql('postgres', "SET client_min_messages = warning; $_[0]") }

# Play events, in batches; returns the inbox id of each.
sub play
{
	my @ids;
	my $sql = 'SET client_min_messages = warning; SET contactsync.batch_size = ' . pick(1, 5, 500) . ';';
	for my $event (@_)
	{
		$sql .= "$event SELECT currval('contactsync.inbox_id_seq');";
		$sql .= 'SELECT 0 FROM contactsync.process();' if rand() < .1;
	}
	my $out = $node->safe_psql('postgres', "$sql SELECT 0 FROM contactsync.process();");
	# ingest() gives its id as well
	my ($last, @all) = (0);
	for my $id (grep { $_ } split /\n/, $out)
	{
		push @all, $id if $id != $last;
		$last = $id;
	}
	is(scalar @all, scalar @_, 'each event has an id');
	return @all;
}

sub forget
{
	ask(q{TRUNCATE contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
		contactsync.contact_aliases, contactsync.conflicts, contactsync.inbox, contactsync.contact_events;});
}

my $computed = $Histories::content =~ s/SELECT source, source_id, digest, effective.*//sr;
my $explained = q{SELECT string_agg(r.source || '/' || r.source_id, ',' ORDER BY r.source, r.source_id) AS members, e::text
	FROM contactsync.contacts c JOIN contactsync.records r ON r.contact_id = c.id,
		contactsync.explain(c.id) e GROUP BY c.id, e::text ORDER BY 1, 2;};
my ($replaced, $nlate) = (0, 0);

for my $round (1 .. $rounds)
{
	my @before = map { receive($_) } map { random_event(12, 1) } 1 .. 300;
	my @after = map { receive($_) } map { random_event(26, 13) } 1 .. 200;
	# deliveries of what is known by now are neither new nor late
	my @again = grep { !/received_at/ } map { pick(@before) } 1 .. 60;

	forget();
	play(@before);
	my $was = ask($computed . $explained);
	for my $day (2 + int rand 6, 8 + int rand 7)
	{
		my $n = ask(sprintf "SELECT contactsync.compact('2026-01-%02d')", $day);
		$replaced += $n;
		ok(ask($computed . $explained) eq $was, "round $round: compacting $n observations up to day $day changes nothing")
		  or diag("SEED=$seed\n" . first_difference($was, ask($computed . $explained)));
		is(ask(sprintf "SELECT contactsync.compact('2026-01-%02d')", $day), '0', 'and there is nothing left to compact');
		is(ask('SELECT * FROM contactsync.verify()'), '', 'and all of it can be computed again');
	}
	my @order = shuffle(@after, @again);
	my @ids = play(@order);
	my %late = map { $_ => 1 } split /\n/, ask('SELECT inbox_id FROM contactsync.observations WHERE late');
	$nlate += keys %late;
	my %lost = map { $order[$_] => 1 } grep { $late{ $ids[$_] } } 0 .. $#order;
	my $got = ask($computed . $explained);
	is(ask('SELECT * FROM contactsync.verify()'), '', 'what came later can be computed again');
	is(scalar(grep { $lost{$_} } @before), 0, 'what was known is not late');

	forget();
	play(@before);
	play(grep { !$lost{$_} } shuffle(@order));
	my $want = ask($computed . $explained);
	ok($got eq $want, "round $round: what came later has the result that it had without compaction")
	  or diag("SEED=$seed\n" . first_difference($want, $got));
}
cmp_ok($replaced, '>', 100 * $rounds, "$replaced observations were compacted");
cmp_ok($nlate, '>', 0, "$nlate came too late");

$node->stop;
done_testing();
