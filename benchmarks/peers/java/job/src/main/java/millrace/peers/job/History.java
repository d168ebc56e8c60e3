package millrace.peers.job;

import java.util.Arrays;

/**
 * One customer's payments that some window may still see: event times in ascending order, amounts in cents, and running sums, so that a
 * window is two binary searches and a difference.
 *
 * <p>A payment at {@code t} sees those before it in the log with event times in {@code (t - length, t]}, and itself. One that is older
 * than the newest by more than the lateness is looked at as of the oldest time still allowed, and is not remembered.
 *
 * <p>Each remembered payment has a slot, a small number that a store may keep it under. Slots of forgotten payments are used again, so a
 * customer takes as many as it has payments in sight, and none has to be deleted.
 */
public final class History {
    public static final int TOO_LATE = -1;

    private static final int FEWEST = 16;
    private static final double CENTS = 100.0;

    private long[] times;
    private long[] cents;
    private long[] before; // before[i]: sum of the cents in places below i
    private int[] slots;
    private int first;
    private int end;
    private int[] freeSlots;
    private int free;
    private int usedSlots;

    public History() {
        this(FEWEST);
    }

    public History(int room) {
        times = new long[room];
        cents = new long[room];
        before = new long[room + 1];
        slots = new int[room];
        freeSlots = new int[FEWEST];
    }

    private History(History other) {
        times = other.times.clone();
        cents = other.cents.clone();
        before = other.before.clone();
        slots = other.slots.clone();
        first = other.first;
        end = other.end;
        freeSlots = other.freeSlots.clone();
        free = other.free;
        usedSlots = other.usedSlots;
    }

    public History copy() {
        return new History(this);
    }

    /**
     * Let one payment pass.
     *
     * @param features where its features go: per window the count, then the mean in units of the amount
     * @return the slot of the payment, or {@link #TOO_LATE} if it is not remembered
     */
    public int pass(long eventMs, long amountCents, double[] features) {
        long at = eventMs;
        boolean remembered = true;
        if (first < end && eventMs < times[end - 1] - Windows.LATENESS_MS) {
            at = times[end - 1] - Windows.LATENESS_MS;
            remembered = false;
        }
        int place = firstAfter(at);
        for (int window = 0; window < Windows.LENGTHS_MS.length; window++) {
            int oldest = firstAfter(at - Windows.LENGTHS_MS[window]);
            int count = place - oldest + 1;
            long sum = before[place] - before[oldest] + amountCents;
            features[2 * window] = count;
            features[2 * window + 1] = sum / (count * CENTS);
        }
        if (!remembered) {
            return TOO_LATE;
        }
        forget(Math.max(eventMs, first < end ? times[end - 1] : eventMs));
        int slot = free > 0 ? freeSlots[--free] : usedSlots++;
        insert(eventMs, amountCents, slot);
        return slot;
    }

    /** Remember a payment that passed before and was kept under a slot; in any order. */
    public void recall(long eventMs, long amountCents, int slot) {
        insert(eventMs, amountCents, slot);
        usedSlots = Math.max(usedSlots, slot + 1);
    }

    public int size() {
        return end - first;
    }

    public long timeMs(int index) {
        return times[first + index];
    }

    public long cents(int index) {
        return cents[first + index];
    }

    private void insert(long eventMs, long amountCents, int slot) {
        if (end == times.length) {
            makeRoom();
        }
        int place = firstAfter(eventMs);
        if (place < end) {
            System.arraycopy(times, place, times, place + 1, end - place);
            System.arraycopy(cents, place, cents, place + 1, end - place);
            System.arraycopy(slots, place, slots, place + 1, end - place);
        }
        times[place] = eventMs;
        cents[place] = amountCents;
        slots[place] = slot;
        end++;
        for (int i = place; i < end; i++) {
            before[i + 1] = before[i] + cents[i];
        }
    }

    /** Forget what no window can see any more, now that there is a payment at this time. */
    private void forget(long newestMs) {
        long oldest = newestMs - Windows.LATENESS_MS - Windows.LONGEST_MS;
        while (first < end && times[first] <= oldest) {
            if (free == freeSlots.length) {
                freeSlots = Arrays.copyOf(freeSlots, 2 * free);
            }
            freeSlots[free++] = slots[first++];
        }
    }

    /** The first place whose time is after the given one. */
    private int firstAfter(long timeMs) {
        if (first == end || times[end - 1] <= timeMs) {
            return end;
        }
        int low = first;
        int high = end;
        while (low < high) {
            int middle = (low + high) >>> 1;
            if (times[middle] <= timeMs) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    }

    /** Move everything to the front, of larger arrays unless a quarter is free already. */
    private void makeRoom() {
        int room = size() > times.length * 3 / 4 ? 2 * times.length : times.length;
        times = Arrays.copyOf(Arrays.copyOfRange(times, first, end), room);
        cents = Arrays.copyOf(Arrays.copyOfRange(cents, first, end), room);
        slots = Arrays.copyOf(Arrays.copyOfRange(slots, first, end), room);
        before = Arrays.copyOf(Arrays.copyOfRange(before, first, end + 1), room + 1);
        end -= first;
        first = 0;
    }
}
