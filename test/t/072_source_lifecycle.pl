# Sources beyond their first read: reconcile() with its drift, schedules kept by the
# worker, and drop_source() in the middle of a run.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes 'time';

my ($node, $dir) = peers_node('lifecycle');
my ($emulator, $port) = start_providers($dir);

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub wait_run
{
	my ($call) = @_;
	return sql("SELECT $call AS run \\gset\nSELECT wait_for_run(:run, '60 s') || ' ' || :run");
}
sub drift
{
	my ($run) = @_;
	return sql("SELECT source_id, field, coalesce(stored #>> '{}', '-'), coalesce(at_source #>> '{}', '-'), contact_id IS NOT NULL FROM drift WHERE run = $run ORDER BY 1, 2");
}
sub truth { return scalar @{ control(op => 'people', provider => 'google')->{people} } }

sql('CREATE EXTENSION contactsync');
control(op => 'reset', provider => 'google', count => 60);
control(op => 'set', provider => 'google', page => 20);
my $settings = encode_json({ url => "http://127.0.0.1:$port/google", parameters => { page_size => '20' }, poll => JSON::PP::false, rate => JSON::PP::false,
	allow_http => JSON::PP::true, allow_private => JSON::PP::true });
my $add = qq{SELECT add_source('google', 'google', '$settings', '{"token": "tok"}')};
sql($add);
like(wait_run("sync('google')"), qr/^succeeded/, 'the first read');

# ---- reconcile ----
my ($run) = wait_run("reconcile('google')") =~ /^succeeded (\d+)/;
is(sql("SELECT kind, cause, certified FROM runs WHERE id = $run"), 'full|reconcile|t', 'reconcile is a certified full read');
is(drift($run), '', 'and finds nothing where all is as it is stored');
control(op => 'edit', provider => 'google', id => 1001, fields => { title => 'Drifter' });
control(op => 'delete', provider => 'google', id => 1005);
control(op => 'create', provider => 'google', fields => { first => 'New', last => 'Comer', email => 'new@google.example', phone => '+44 20 7946 0991', company => 'C', title => 'T' });
($run) = wait_run("reconcile('google')") =~ /^succeeded (\d+)/;
my $drift = drift($run);
like($drift, qr/^[^|]*1001\|title\|[^|]+\|Drifter\|t$/m, 'a title that is another one');
like($drift, qr/^[^|]*1005\|last_name\|[^|]+\|-\|t$/m, 'one that the source shows no more, by each of its fields');
like($drift, qr/^[^|]*\|last_name\|-\|Comer\|f$/m, 'one that was not known');
is(sql("SELECT count(DISTINCT source_id) FROM drift WHERE run = $run"), '3', 'and nobody else');
is(sql("SELECT drifted_records FROM run_history WHERE run = $run"), '3', 'run_history counts them');
is(sql(q{SELECT count(*) FROM directory WHERE title = 'Drifter'}), '1', 'what drifted is applied');
($run) = wait_run("reconcile('google')") =~ /^succeeded (\d+)/;
unlike(drift($run), qr/Drifter|Comer/, 'and then is no drift any more');
is(sql(q{SELECT count(*) FROM records WHERE source = 'google' AND alive}), truth(), 'nor is the one that was missed twice');
($run) = wait_run("reconcile('google')") =~ /^succeeded (\d+)/;
is(drift($run), '', 'a last one finds nothing');

# ---- schedule ----
sql(q{SELECT schedule('google', '0 2 * * *', job => 'reconcile')});
my $runs = sql('SELECT count(*) FROM runs');
sql(q{UPDATE schedules SET next_at = clock_timestamp() + interval '1 s'});
ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM contactsync.schedules k JOIN contactsync.runs r ON r.id = k.last_run
	WHERE r.cause = 'reconcile' AND r.state = 'succeeded' AND k.next_at > now())}), 'the worker keeps the time');
is(sql('SELECT count(*) FROM runs'), $runs + 1, 'with one run');
is(sql(q{SELECT level FROM health()}), 'ok', 'health() has nothing to say');
sql(q{SELECT unschedule('google')});

# ---- an end in the middle of a run ----
for my $claims ('keep', 'withdraw', 'purge')
{
	control(op => 'mode', provider => 'google', mode => 'stall', skip => 1);
	$run = sql(q{SELECT sync('google', true)});
	ok($node->poll_query_until('postgres', "SELECT pages > 0 FROM contactsync.runs WHERE id = $run"), "$claims: a run stalls on its second page");
	my $before = time;
	sql("SELECT drop_source('google', '$claims')");
	is(sql("SELECT wait_for_run($run)"), 'failed', "$claims: the run has ended");
	cmp_ok(time - $before, '<', 5, "$claims: within 5 s");
	is(sql("SELECT error_code FROM runs WHERE id = $run"), '57014', "$claims: because of that");
	is(sql(q{SELECT count(*) FROM status WHERE source = 'google'}), '0', "$claims: the source is gone");
	sql('SELECT process()');
	is(sql(q{SELECT count(*) FROM records WHERE source = 'google' AND alive}), $claims eq 'keep' ? truth() : 0, "$claims: its records are as they should be");
	is(sql(q{SELECT count(*) FROM directory}), $claims eq 'keep' ? truth() : 0, "$claims: so are the contacts");
	is(sql('SELECT count(*) FROM verify()'), '0', "$claims: and all is sound");
	control(op => 'mode', provider => 'google', mode => undef);
	sql($add);
	like(wait_run("sync('google')"), qr/^succeeded/, "$claims: it can be added again");
	is(sql(q{SELECT count(*) FROM records WHERE source = 'google' AND alive}), truth(), "$claims: and brings all");
	is(sql(q{SELECT count(*) FROM directory}), truth(), "$claims: as contacts, too");
}

# ---- other settings in the middle of a run ----
control(op => 'mode', provider => 'google', mode => 'stall', skip => 1);
$run = sql(q{SELECT sync('google', true)});
ok($node->poll_query_until('postgres', "SELECT pages > 0 FROM contactsync.runs WHERE id = $run"), 'a run stalls');
sql(q{SELECT alter_source('google', '{"parameters": {"page_size": "30"}}')});
is(sql("SELECT state FROM runs WHERE id = $run"), 'failed', 'other parameters end it');
control(op => 'mode', provider => 'google', mode => undef);
like(wait_run("sync('google')"), qr/^succeeded/, 'the next one succeeds');
is(sql("SELECT kind FROM runs ORDER BY id DESC LIMIT 1"), 'full', 'and reads everything');

$node->stop;
$emulator->kill_kill;
done_testing();
