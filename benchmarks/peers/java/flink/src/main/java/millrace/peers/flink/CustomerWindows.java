package millrace.peers.flink;

import millrace.peers.job.History;
import millrace.peers.job.Payment;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** Each payment with what its customer's windows hold at it. A customer's state is one history, in the order of the log. */
final class CustomerWindows extends KeyedProcessFunction<String, Payment, ScoredPayment> {
    private static final long serialVersionUID = 1L;

    private transient ValueState<History> histories;

    @Override
    public void open(OpenContext context) {
        histories = getRuntimeContext().getState(new ValueStateDescriptor<>("history", HistorySerializer.INSTANCE));
    }

    @Override
    public void processElement(Payment payment, Context context, Collector<ScoredPayment> out) throws Exception {
        History history = histories.value();
        if (history == null) {
            history = new History();
        }
        ScoredPayment scored = new ScoredPayment();
        scored.paymentId = payment.paymentId;
        scored.customerId = payment.customerId;
        if (history.pass(payment.eventMs, payment.amountCents, scored.features) != History.TOO_LATE) {
            histories.update(history);
        }
        out.collect(scored);
    }
}
