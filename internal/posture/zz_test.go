package posture
import ("testing";"fmt";"os";"strconv";"math/rand/v2")
func TestZZ(t *testing.T){
 seed,_:=strconv.Atoi(os.Getenv("ZZ"))
 dir:=t.TempDir()
 writePolicy(t, dir, policyGenerator{rand.New(rand.NewPCG(uint64(seed), 7))})
 in := fixtureInput(dir, Settings{})
 db, _ := readAccounts(t.Context(), in.Rootfs)
 j, err := readSudo(t.Context(), in, db)
 fmt.Println(err)
 for _,u:=range []string{"alice","bob","carol"} { fmt.Printf("%s %+v\n",u,j.user(u)); m:=j.userMatcher(&db.users[db.userByName[u]]); for i,r:=range j.rules { fmt.Println(" ",j.policy.rules[i].file,j.policy.rules[i].line,m.list(r.users)); for _,g:=range r.grants { fmt.Printf("     %v\n",g.host); for _,it:=range g.items { fmt.Printf("         %+v\n",it) } } } }
 fmt.Println(askSudo(t,dir), readTree(t,dir))
}
