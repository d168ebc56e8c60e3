package millrace.peers.job;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

class HistoryTest {
    // Times on a coarse grid, so that many are equal and many lie just on the edge of a window.
    private static final long SIX_HOURS_MS = 21_600_000L;

    private record Seen(long eventMs, long cents) {}

    @Test
    void featuresAreWhatTheDefinitionSays() {
        for (int seed = 0; seed < 50; seed++) {
            Random random = new Random(seed);
            History history = new History();
            List<Seen> remembered = new ArrayList<>();
            long now = 0;
            for (int payment = 0; payment < 1_000; payment++) {
                now += random.nextInt(8) * SIX_HOURS_MS;
                long eventMs = now - (random.nextInt(10) == 0 ? random.nextInt(12) * SIX_HOURS_MS : 0);
                long cents = random.nextInt(50_000);
                double[] found = new double[Windows.FEATURES];
                int slot = history.pass(eventMs, cents, found);
                double[] wanted = new double[Windows.FEATURES];
                boolean tooLate = slowly(remembered, eventMs, cents, wanted);
                assertArrayEquals(wanted, found, "payment " + payment + " of seed " + seed);
                assertTrue(tooLate == (slot == History.TOO_LATE));
                if (payment % 97 == 0) {
                    history = history.copy();
                }
            }
        }
    }

    @Test
    void aHistoryMadeOfItsSlotsGoesOnAsBefore() {
        Random random = new Random(7);
        History history = new History();
        Map<Integer, Seen> kept = new HashMap<>();
        long now = 0;
        for (int payment = 0; payment < 2_000; payment++) {
            now += random.nextInt(4) * SIX_HOURS_MS;
            long eventMs = now - (random.nextInt(10) == 0 ? random.nextInt(12) * SIX_HOURS_MS : 0);
            long cents = random.nextInt(50_000);
            if (payment % 50 == 49) {
                History again = new History();
                kept.forEach((slot, seen) -> again.recall(seen.eventMs, seen.cents, slot));
                double[] one = new double[Windows.FEATURES];
                double[] other = new double[Windows.FEATURES];
                history.copy().pass(eventMs, cents, one);
                again.copy().pass(eventMs, cents, other);
                assertArrayEquals(one, other);
                history = again;
            }
            int slot = history.pass(eventMs, cents, new double[Windows.FEATURES]);
            if (slot != History.TOO_LATE) {
                kept.put(slot, new Seen(eventMs, cents));
            }
        }
        assertTrue(kept.size() < 2 * 64, "slots are used again: " + kept.size());
    }

    private static boolean slowly(List<Seen> remembered, long eventMs, long cents, double[] features) {
        long newest = remembered.stream().mapToLong(Seen::eventMs).max().orElse(eventMs);
        boolean tooLate = eventMs < newest - 86_400_000L;
        long at = tooLate ? newest - 86_400_000L : eventMs;
        int[] days = {1, 7, 30};
        for (int window = 0; window < days.length; window++) {
            long after = at - days[window] * 86_400_000L;
            long[] inside = remembered.stream().filter(seen -> after < seen.eventMs && seen.eventMs <= at).mapToLong(Seen::cents).toArray();
            features[2 * window] = inside.length + 1;
            long sum = cents;
            for (long each : inside) {
                sum += each;
            }
            features[2 * window + 1] = sum / ((inside.length + 1) * 100.0);
        }
        if (!tooLate) {
            remembered.add(new Seen(eventMs, cents));
        }
        return tooLate;
    }
}
